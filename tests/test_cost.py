import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_task
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from test_step import Setting

from umair_jax.data.batches import BatchSource
from umair_jax.training import cost, hlo, logs
from umair_jax.training.cost import Cost, Roofline
from umair_jax.training.hlo import Collective
from umair_jax.training.sharding import MeshConfig, make_mesh

pytestmark = pytest.mark.usefixtures("compiled_once")

ROWS = 4096


def compiled(setting):
    batch = setting.place(BatchSource(toy_task.columns(200), 16, seed=1).batch(0))
    return setting.step.lower(setting.state, setting.context, batch).compile()


@pytest.mark.parametrize("model", [1, 4])
def test_nothing_as_large_as_a_table_goes_between_devices(model):
    """Neither look-up nor update, whatever the axes; and what there is depends on no rows."""
    found = cost.of(compiled(Setting(8, model, task=toy_task.TallTask(ROWS))))
    share = ROWS * toy_task.WIDTH * 4 // 8  # of one device
    assert found.collectives
    assert max(each.size for each in found.collectives) < share / 8
    short = cost.of(compiled(Setting(8, model)))
    assert sorted(found.collectives, key=str) == sorted(short.collectives, key=str)


def test_operations_and_bytes_of_a_matrix_product():
    a, b = jnp.ones((64, 32)), jnp.ones((32, 128))
    found = cost.of(jax.jit(jnp.matmul).lower(a, b).compile())
    assert found.flops == pytest.approx(2 * 64 * 32 * 128, rel=0.01)
    assert found.size == 4 * (64 * 32 + 32 * 128 + 64 * 128)
    assert found.intensity == found.flops / found.size
    assert found.memory >= 4 * (64 * 32 + 32 * 128 + 64 * 128)
    assert found.collectives == ()


def test_collectives_of_a_program():
    mesh = make_mesh(MeshConfig())
    spread, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())

    def both(x):
        return jax.lax.with_sharding_constraint(x * 2, whole), x.sum()

    x = jax.ShapeDtypeStruct((64, 3), jnp.float32, sharding=spread)
    made = jax.jit(both, out_shardings=(whole, whole)).lower(x).compile()
    found = hlo.collectives(made.as_text())
    assert Collective("all-gather", 64 * 3 * 4) in found
    assert Collective("all-reduce", 4) in found
    assert len(found) == 2


def test_the_text_of_a_program_is_read_whole():
    text = """
      %a = f32[8,4]{1,0} all-gather(%x), dimensions={0}
      %b = (bf16[16]{0}, s32[]) all-reduce(%y, %z), to_apply=%sum
      %c = (f32[2]{0}, f32[16]{0}) all-gather-start(%w)
      %d = f32[16]{0} all-gather-done(%c)
      %e = pred[5]{0} collective-permute(%v)
      %f = f32[4]{0} fusion(%all-reduce.1), calls=%g
    """
    assert hlo.collectives(text) == (
        Collective("all-gather", 128),
        Collective("all-reduce", 36),
        Collective("all-gather", 72),
        Collective("collective-permute", 5),
    )


def test_the_limit_is_the_lower_of_two():
    roofline = Roofline(flops=1e12, bandwidth=1e11)
    heavy, light = Cost(1e10, 1e8, 0, ()), Cost(1e9, 1e9, 0, ())
    assert roofline.share(heavy, 0.01) == pytest.approx(1.0)
    assert roofline.share(light, 0.01) == pytest.approx(1.0)
    assert roofline.share(light, 0.1) == pytest.approx(0.1)


def test_a_run_says_what_an_update_costs(tmp_path, capsys):
    toy_task.run(tmp_path, train__steps=8, log__cost=True)
    said = capsys.readouterr().out
    assert "an update on each device: " in said
    assert "FLOP/B" in said
    assert "ms an update: " in said
    (line,) = [line for line in logs.read(tmp_path) if line["kind"] == logs.COST]
    assert line["flops"] > 0
    assert line["collective_bytes"] > 0
    assert 0 < line["share_of_roofline"] < 1.5
    assert np.isfinite([value for name, value in line.items() if name != "kind"]).all()

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umair_jax.training import hlo
from umair_jax.training.hlo import Kernels

PROGRAM = """HloModule jit_update, is_scheduled=true, entry_computation_layout={()->f32[]}

%look_up (param_0: f32[1000,8], param_1: s32[16,1]) -> f32[16,8] {
  %param_0 = f32[1000,8]{1,0} parameter(0)
  %param_1 = s32[16,1]{1,0} parameter(1)
  ROOT %gather.1 = f32[16,8]{1,0} gather(%param_0, %param_1), offset_dims={1}
}

%write (param_0: f32[1000,8], param_1: s32[16,1], param_2: f32[16,8]) -> f32[1000,8] {
  %param_0 = f32[1000,8]{1,0} parameter(0)
  %param_1 = s32[16,1]{1,0} parameter(1)
  %param_2 = f32[16,8]{1,0} parameter(2)
  ROOT %scatter.1 = f32[1000,8]{1,0} scatter(%param_0, %param_1, %param_2), to_apply=%add
}

ENTRY %main.1 (table.1: f32[1000,8], rows.1: s32[16,1]) -> f32[1000,8] {
  %table.1 = f32[1000,8]{1,0} parameter(0)
  %rows.1 = s32[16,1]{1,0} parameter(1)
  %weight.1 = f32[8,8]{1,0} constant({...})
INSTRUCTIONS
}
"""


def kernels(*instructions):
    return hlo.kernels(
        PROGRAM.replace("INSTRUCTIONS", "\n".join(f"  {line}" for line in instructions))
    )


def test_of_a_look_up_the_rows_count_and_not_the_table():
    found = kernels("%a = f32[16,8]{1,0} fusion(%table.1, %rows.1), kind=kLoop, calls=%look_up")
    assert found == Kernels(1, 16 * 8 * 4 + 16 * 4 + 16 * 8 * 4)


def test_of_rows_written_in_place_the_rows_count_and_not_the_table():
    look_up = "%a = f32[16,8]{1,0} fusion(%table.1, %rows.1), kind=kLoop, calls=%look_up"
    write = (
        "ROOT %b = f32[1000,8]{1,0} fusion(%table.1, %rows.1, %a), kind=kCustom, calls=%write, "
        'metadata={op_name="jit(update)/scatter-add"}'
    )
    assert kernels(look_up, write).size - kernels(look_up).size == 2 * (16 * 4 + 16 * 8 * 4)


def test_libraries_count_without_their_workspace_and_what_is_no_kernel_not_at_all():
    found = kernels(
        "%a = f32[16,8]{1,0} bitcast(%rows.1)",
        "%b = (f32[16,8]{1,0}, s8[4194304]{0}) custom-call(%a, %weight.1), "
        'custom_call_target="__cublas$gemm"',
        "%c = f32[16,8]{1,0} get-tuple-element(%b), index=0",
        "%d = f32[16,8]{1,0} copy(%c)",
    )
    rows, weight = 16 * 8 * 4, 8 * 8 * 4
    assert found == Kernels(2, (rows + weight + rows) + 2 * rows)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int8])
def test_a_real_program_moves_what_goes_in_and_comes_out(dtype):
    x = jax.ShapeDtypeStruct((64, 32), dtype)
    text = jax.jit(lambda x: x + 1).lower(x).compile().as_text()
    assert hlo.kernels(text) == Kernels(1, 2 * 64 * 32 * np.dtype(dtype).itemsize)

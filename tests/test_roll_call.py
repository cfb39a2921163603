import concurrent.futures
import json
import socket
import time

import pytest

from umair_jax import roll_call
from umair_jax.roll_call import RollCallError, address


def free_port():
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        return sock.getsockname()[1]


def call(places, seconds=10.0):
    """What each of (processes, process, facts) hears: its list of hosts, or its error."""
    coordinator = f"localhost:{free_port()}"

    def one(place):
        processes, process, facts = place
        try:
            return roll_call.roll_call(coordinator, processes, process, facts, seconds)
        except RollCallError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(one, places))


def test_all_hear_of_all_in_whatever_order_they_come():
    coordinator = f"localhost:{free_port()}"
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        late = [
            pool.submit(roll_call.roll_call, coordinator, 3, i, {"host": f"node{i}"}, 10.0)
            for i in (2, 1)
        ]
        time.sleep(0.3)  # nobody listens yet
        first = pool.submit(roll_call.roll_call, coordinator, 3, 0, {"host": "node0"}, 10.0)
        for found in (first, *late):
            assert found.result() == ["node0", "node1", "node2"]


def test_the_missing_are_named_to_all_that_came():
    said = call([(4, 0, {"host": "a"}), (4, 2, {"host": "c"})], seconds=1.0)
    assert "2 of 4 processes have not come: 1, 3; there are: 0 (a), 2 (c)" in said[0]
    assert said[1] == f"process 2 on c: {said[0]}"


def test_a_missing_process_0_is_named():
    (said,) = call([(2, 1, {"host": "b"})], seconds=1.0)
    assert said.startswith("process 1 on b: cannot reach process 0 at localhost:")
    assert "refused" in said


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([(3, 0, {"host": "a"}), (3, 1, {"host": "b"}), (3, 1, {"host": "c"})], "the number 1: on"),
        ([(2, 0, {"host": "a"}), (3, 1, {"host": "b"})], "on b has processes 3, process 0 on a"),
        ([(2, 0, {"host": "a"}), (2, 2, {"host": "b"})], "on b: got a number beyond 2 processes"),
        (
            [(2, 0, {"host": "a", "jax": "1"}), (2, 1, {"host": "b", "jax": "2"})],
            "process 1 on b has jax 2, process 0 on a has 1",
        ),
    ],
)
def test_what_does_not_fit_together_ends_all(places, words):
    said = call(places)
    assert words in said[0]
    assert all(words in text for text in said[1:])


def test_other_connections_are_no_processes():
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(roll_call.roll_call, f"localhost:{port}", 2, 0, {"host": "a"}, 10.0)
        time.sleep(0.2)
        for line in (b"GET / HTTP/1.1\r\n\r\n", b"[1, 2]\n", b'{"process": "1"}\n', b""):
            with socket.create_connection(("localhost", port), timeout=5) as sock:
                sock.sendall(line)
        second = pool.submit(roll_call.roll_call, f"localhost:{port}", 2, 1, {"host": "b"}, 10.0)
        assert first.result() == second.result() == ["a", "b"]


def test_a_line_that_never_ends_is_given_up():
    with socket.create_server(("localhost", 0)) as server:
        sender = socket.create_connection(server.getsockname(), timeout=5)
        line, _ = server.accept()
        sender.sendall(json.dumps({"process": 1}).encode())  # no end of line
        began = time.monotonic()
        assert roll_call._said(line, 0.3) is None
        assert time.monotonic() - began < 3
        sender.close()
        line.close()


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RollCallError, match=f"cannot listen on port {port}.*another run"):
            roll_call.roll_call(f"localhost:{port}", 2, 0, {"host": "a"}, 1.0)


def test_addresses():
    assert address("node7:1234") == ("node7", 1234)
    assert address("[::1]:80") == ("::1", 80)
    for wrong in ("node7", "node7:", ":80", "node7:0", "node7:99999", "node7:x"):
        with pytest.raises(ValueError, match="expected host:port"):
            address(wrong)

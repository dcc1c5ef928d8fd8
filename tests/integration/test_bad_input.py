"""What hostile or broken requests get: an answer each, a clear one, through HAProxy and from the replica itself."""

import json
import socket
import uuid

import httpx
import pytest

from obslib import names
from stack.processes import SHOP
from tests.integration.running import RunningStack

PROBLEM = "application/problem+json"


def order_headers(**more: str) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "Idempotency-Key": uuid.uuid4().hex,
        "X-API-Key": uuid.uuid4().hex,
        **more,
    }


def assert_problem(answer: httpx.Response, status: int) -> None:
    """RFC 9457: a problem document that repeats the status and names the request."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    document = answer.json()
    assert document["status"] == status
    assert document["request_id"] == answer.headers["x-request-id"]


def raw(url: str, request: bytes) -> bytes:
    """Send bytes no client library would send, and read the answer to its end."""
    address = httpx.URL(url)
    assert address.port is not None
    with socket.create_connection((address.host, address.port), timeout=30) as connection:
        connection.sendall(request)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


@pytest.fixture(params=["through HAProxy", "the replica itself"])
def entry(request: pytest.FixtureRequest, stack: RunningStack) -> str:
    """The two ways in: a deployment may have another proxy in front, or none."""
    return stack.url if request.param == "through HAProxy" else stack.process_url("shop-1")


def test_a_request_id_of_ten_kilobytes_is_replaced(stack: RunningStack, entry: str) -> None:
    """The request is served; the id in answer and log is a fresh one of ordinary length."""
    answer = stack.http.get(f"{entry}/v1/products", headers={"X-Request-ID": "a" * 10_000, "X-API-Key": "long"})

    assert answer.status_code == 200
    assert 8 <= len(answer.headers["x-request-id"]) <= 64
    line = stack.access_line(SHOP, answer.headers["x-request-id"])
    assert "a" * 100 not in json.dumps(line)


@pytest.mark.parametrize("newline", [b"\n", b"\r"])
def test_a_newline_in_a_header_smuggles_nothing(stack: RunningStack, entry: str, newline: bytes) -> None:
    """A bare line feed or carriage return is refused or ends the line; the injected text is in no log line's id."""
    marker = uuid.uuid4().hex
    request = (
        b"GET /v1/products HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nX-API-Key: newline\r\n"
        b"X-Request-ID: good" + newline + b'{"event":"' + marker.encode() + b'"}\r\n\r\n'
    )

    answer = raw(entry, request)

    status = int(answer.split(b" ", 2)[1])
    assert status in {200, 400}
    assert marker.encode() not in answer
    assert not stack.log_lines(SHOP, **{names.LOG_EVENT: marker})


@pytest.mark.parametrize(
    "traceparent",
    [
        "nonsense",
        "00-00000000000000000000000000000000-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-" + "a" * 5000,
    ],
)
def test_an_invalid_traceparent_starts_a_new_trace(stack: RunningStack, entry: str, traceparent: str) -> None:
    """W3C: what cannot be parsed is ignored; the request is traced under an id of its own."""
    request_id = uuid.uuid4().hex
    answer = stack.http.get(
        f"{entry}/v1/products", headers={"traceparent": traceparent, "X-Request-ID": request_id, "X-API-Key": "w3c"}
    )

    assert answer.status_code == 200
    trace_id = stack.access_line(SHOP, request_id)[names.LOG_TRACE_ID]
    assert len(trace_id) == 32
    assert trace_id not in traceparent.lower()


def test_a_body_over_the_limit_is_413(stack: RunningStack, entry: str) -> None:
    """An announced length over 64 KiB is refused before the body is read."""
    answer = stack.http.post(f"{entry}/v1/orders", content=b" " * 70_000, headers=order_headers())

    assert_problem(answer, 413)


def test_an_unannounced_body_over_the_limit_is_413(stack: RunningStack, entry: str) -> None:
    """A chunked body is counted as it arrives."""
    chunks = (b" " * 10_000 for _ in range(10))
    answer = stack.http.post(f"{entry}/v1/orders", content=chunks, headers=order_headers())

    assert_problem(answer, 413)


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b""])
def test_a_body_that_is_no_json_is_a_problem(stack: RunningStack, entry: str, body: bytes) -> None:
    """Malformed JSON is the client's error, said so in a problem document."""
    answer = stack.http.post(f"{entry}/v1/orders", content=body, headers=order_headers())

    assert_problem(answer, 422 if body == b"" else 400)


def test_json_that_is_no_order_is_422_and_names_the_field(stack: RunningStack, entry: str) -> None:
    """A well-formed body of the wrong shape is answered with where it is wrong."""
    answer = stack.http.post(f"{entry}/v1/orders", json={"items": []}, headers=order_headers())

    assert_problem(answer, 422)
    assert answer.json()["errors"][0]["pointer"] == "body/items"


def test_headers_beyond_haproxys_buffer_are_400(stack: RunningStack) -> None:
    """More than 15 kB of headers are refused at the edge: HAProxy answers in its own words, before any rule of ours."""
    answer = stack.http.get(f"{stack.url}/v1/products", headers={"X-Padding": "a" * 30_000})

    assert answer.status_code == 400


def test_what_is_no_http_is_400(stack: RunningStack, entry: str) -> None:
    """Bytes that are no request get an answer and a closed connection, not a hanging one."""
    answer = raw(entry, b"\x16\x03\x01\x02\x00\x01\x00 hello\r\n\r\n")

    assert answer.split(b"\r\n", 1)[0].split(b" ")[1] == b"400"


def test_a_callers_claim_about_its_address_is_dropped(stack: RunningStack) -> None:
    """The address in the log is the connection's, or anyone could dodge the rate limit."""
    request_id = uuid.uuid4().hex
    stack.http.get(f"{stack.url}/v1/products", headers={"X-Forwarded-For": "203.0.113.7", "X-Request-ID": request_id})

    assert stack.access_line(SHOP, request_id)[names.LOG_CLIENT_ADDRESS] == "127.0.0.1"

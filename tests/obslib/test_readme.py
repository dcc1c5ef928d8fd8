"""The README's code is code: it runs as it stands there."""

import re

import pytest

from tests.obslib.processes import ROOT, run_python

BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)

USE = """
import asyncio, httpx, json
async def use():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        if app.openapi()["paths"]:
            response = await client.post("/v1/orders")
            assert response.json() == {"order_id": "o-1", "request_id": response.headers["x-request-id"]}
        text = (await client.get("/metrics", headers={"accept-encoding": "identity"})).text
        return [line for line in text.splitlines() if line.startswith(("target_info", "shop_"))]
print(json.dumps({"metrics": asyncio.run(use())}))
"""


def test_there_are_blocks() -> None:
    """The README shows the one line, and how it is used."""
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS, ids=["the one line", "use it"])
def test_block_runs(block: str) -> None:
    """A block runs, and the application it makes has metrics."""
    lines = run_python(block + USE)
    [said] = [line for line in lines if "metrics" in line]
    assert any(line.startswith("target_info") for line in said["metrics"])
    if "shop_orders_total" in block:
        assert 'shop_orders_total{status="paid",worker="0"} 1.0' in said["metrics"]
        [line] = [line for line in lines if line.get("event") == "order_placed"]
        assert (line["order_id"], line["total_euros"]) == ("o-1", 12.5)

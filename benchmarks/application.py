"""The application that every variant serves: a small JSON API whose last route is asked for."""

from typing import Final

from fastapi import FastAPI

#: What the load asks for: it is matched after all other routes.
PATH: Final = "/v1/items/42"
ROUTES: Final = 10


def build(routes: int) -> FastAPI:
    """
    Make the application.

    Args:
        routes: How many routes it has in all.

    """
    app = FastAPI()
    for number in range(routes - 1):
        app.get(f"/v1/resources_{number}/{{item_id}}")(read_item)
    app.get("/v1/items/{item_id}")(read_item)
    return app


async def read_item(item_id: int) -> dict[str, object]:
    """Answer with a small object, at once."""
    return {"id": item_id, "name": "A small item", "price_euros": 12.5, "in_stock": True, "tags": ["new", "blue"]}

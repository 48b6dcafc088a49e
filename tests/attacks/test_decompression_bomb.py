"""Attack table: 13. The server never decompresses: an artifact is bytes."""

import gzip

import pytest

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
async def test_a_decompression_bomb_is_stored_as_it_is(app_world, encoding):
    bomb = gzip.compress(bytes(50_000_000), 9)
    async with app_world.running() as world:
        main = world.main()
        stored = await world.request(
            "PUT", "/v1/cache/1", main, content=bomb, headers={"content-encoding": encoding}
        )
        assert stored.status_code == 200
        answer = await world.request("GET", "/v1/cache/1", main)
        assert "content-encoding" not in answer.headers
        assert answer.headers["content-length"] == str(len(bomb))
        assert answer.content == bomb

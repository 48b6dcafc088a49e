"""C2SP tile paths, tile sizes and entry bundles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.model.errors import LogInconsistent, Malformed
from secure_cache.tlog.edge import edge_widths
from secure_cache.tlog.tiles import (
    ENTRIES,
    TileId,
    decode_bundle,
    decode_hashes,
    encode_bundle,
    hashes_at,
    tile_name,
)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (TileId(0, 0), "tile/0/000"),
        (TileId(0, 255), "tile/0/255"),
        (TileId(0, 256), "tile/0/256"),
        (TileId(0, 1000), "tile/0/x001/000"),
        (TileId(3, 1_234_067), "tile/3/x001/x234/067"),
        (TileId(63, 123_456_789), "tile/63/x123/x456/789"),
        (TileId(1, 0, 17), "tile/1/000.p/17"),
        (TileId(ENTRIES, 273, 112), "tile/entries/273.p/112"),
        (TileId(ENTRIES, 2**63 - 1), "tile/entries/x009/x223/x372/x036/x854/x775/807"),
    ],
)
def test_paths_as_the_specification_writes_them(tile, path):
    assert str(tile) == path
    assert TileId.parse(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x001/x234/",
        "tile/0/x001/x234",
        "tile/0/001/002",
        "tile/0/x001/0002",
        "tile/0/x001/-002",
        "tile/0/x000/001",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/300",
        "tile/64/000",
        "tile/-1/000",
        "tile/00/000",
        "tile/01/000",
        "tile/0/x009/x223/x372/x036/x854/x775/808",
        "tile/0/x001/x000/x000/x000/x000/x000/x000/000",
        "tile/entries/000 ",
        "tile/entries/000\n",
        "/tile/0/000",
        "tile//0/000",
        "tile/0/../000",
        "tile/Entries/000",
        "tile/0/\u0660\u0660\u0660",
        "tile/0/x\u0660\u06601/000",
    ],
)
def test_any_other_spelling_of_a_path_is_refused(path):
    with pytest.raises(Malformed):
        TileId.parse(path)


@given(st.text(alphabet="tile/0123456789x.pentrs-", max_size=40))
def test_what_parses_is_written_the_same(text):
    try:
        tile = TileId.parse(text)
    except Malformed:
        return
    assert str(tile) == text


@given(st.integers(-1, 63), st.integers(0, 2**63 - 1), st.integers(1, 256))
def test_every_tile_is_read_back_from_its_path(level, index, width):
    tile = TileId(level, index, width)
    assert TileId.parse(str(tile)) == tile


@pytest.mark.parametrize(
    ("size", "widths"),
    [
        (0, ()),
        (1, (1,)),
        (255, (255,)),
        (256, (0, 1)),
        (257, (1, 1)),
        (65_535, (255, 255)),
        (65_536, (0, 0, 1)),
        (65_537, (1, 0, 1)),
        (70_000, (112, 17, 1)),
    ],
)
def test_partial_tiles_of_a_size(size, widths):
    assert edge_widths(size) == widths


def test_how_many_hashes_stand_at_a_level():
    assert [hashes_at(level, 70_000) for level in range(4)] == [70_000, 273, 1, 0]


def test_a_smaller_fanout_keeps_the_names_of_full_tiles():
    assert tile_name(0, 3, 4, fanout=4) == "tile/0/003"
    assert tile_name(0, 3, 2, fanout=4) == "tile/0/003.p/2"


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bundles_are_read_back(entries):
    assert decode_bundle(encode_bundle(entries)) == tuple(entries)


@given(st.binary(max_size=200))
def test_a_bundle_that_parses_is_written_the_same(data):
    try:
        entries = decode_bundle(data)
    except Malformed:
        return
    assert encode_bundle(entries) == data


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x01", b"\x00\x02a", b"\x00\x01ab"])
def test_a_bundle_that_ends_early_is_refused(data):
    with pytest.raises(Malformed):
        decode_bundle(data)


def test_the_longest_entry_fits_and_one_byte_more_does_not():
    assert decode_bundle(encode_bundle([b"x" * 65_535])) == (b"x" * 65_535,)
    with pytest.raises(Malformed):
        encode_bundle([b"x" * 65_536])


@pytest.mark.parametrize("length", [0, 31, 33, 63, 65, 96])
def test_a_tile_of_another_length_is_refused(length):
    with pytest.raises(LogInconsistent):
        decode_hashes(bytes(length), width=2)

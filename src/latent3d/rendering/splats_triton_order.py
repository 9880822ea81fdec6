"""Which splats each tile blends, in order of depth: sorted on the device, without asking it for a number.

Letters: V views, N splats, T tiles of a view. An entry is a pair of a splat and a tile that it can touch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = tl.constexpr(256)


@triton.jit
def count_kernel(rects, order, counts, splat_count, slots):
    """Tiles of the splat in each slot; slots are (view, rank in depth)."""
    slot = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = slot < slots
    n = tl.load(order + slot, mask=valid, other=0)
    at = rects + ((slot // splat_count) * splat_count + n) * 4
    across = tl.load(at + 2, mask=valid, other=0) - tl.load(at, mask=valid, other=0)
    down = tl.load(at + 3, mask=valid, other=0) - tl.load(at + 1, mask=valid, other=0)
    tl.store(counts + slot, across.to(tl.int64) * down, mask=valid)


@triton.jit
def fill_kernel(rects, order, ends, keys, splats, splat_count, slots, capacity, columns, tiles, steps):
    """Tile (counted over all views) and splat of each entry, in order of view and depth.

    An entry finds its slot by bisection: a splat that covers the screen then delays nobody. Entries that nothing fills
    get a tile behind all others. ends (V N): entries up to and with each slot.
    """
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    low, high = tl.zeros([BLOCK], tl.int64), tl.full([BLOCK], 0, tl.int64) + slots  # first slot with ends > entry
    for _ in range(steps):
        open_ = low < high
        middle = (low + high) // 2
        beyond = tl.load(ends + middle, mask=open_, other=0) > entry
        low = tl.where(open_ & ~beyond, middle + 1, low)
        high = tl.where(open_ & beyond, middle, high)
    filled = (entry < capacity) & (low < slots)
    before = tl.load(ends + low - 1, mask=filled & (low > 0), other=0)
    view = low // splat_count
    n = tl.load(order + low, mask=filled, other=0)
    at = rects + (view * splat_count + n) * 4
    left, top = tl.load(at, mask=filled, other=0), tl.load(at + 1, mask=filled, other=0)
    across = tl.load(at + 2, mask=filled, other=1) - left
    place = (entry - before).to(tl.int32)
    row = place // across
    tile = view.to(tl.int32) * tiles + (top + row) * columns + left + place - row * across
    last = (slots // splat_count) * tiles
    tl.store(keys + entry, tl.where(filled, tile, last), mask=entry < capacity)
    tl.store(splats + entry, n.to(tl.int32), mask=filled)


def order_entries(
    rects: Tensor, depths: Tensor, grid: tuple[int, int], capacity: int | None
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Sort the entries of all views by (tile, depth), equal depths by input order.

    Two stable sorts, by depth and then by tile, move less than one of a long key. With a ``capacity`` nothing waits for
    the device and all shapes are known in advance; without, one number, the entries, is read back.

    Args:
        rects: first column, first row, past-last column, past-last row of tiles, int32 (V, N, 4).
        depths: (V, N).
        grid: columns and rows of tiles.
        capacity: room for entries; those that find none are left out, so compare with the number found.

    Returns:
        entries: index of the splat in its view, int32 (capacity,).
        starts: of each tile's entries, (V T + 1,).
        found: entries that there are, (1,).
        capacity.

    Raises:
        ValueError: if tiles or entries are too many to be counted in 31 bits.
    """
    views, total = depths.shape
    columns, rows = grid
    tiles, slots, device = columns * rows, views * total, depths.device
    order = torch.sort(depths, dim=1, stable=True).indices
    counts = torch.empty(slots, dtype=torch.int64, device=device)
    count_kernel[(triton.cdiv(slots, BLOCK.value),)](rects, order, counts, max(total, 1), slots)
    ends = counts.cumsum(0)
    found = counts.sum().reshape(1)
    if capacity is None:
        capacity = int(found.item())
    if max(capacity, views * tiles) >= 2**31:
        raise ValueError(
            f"{capacity} pairs of splat and tile in {views * tiles} tiles are too many; render fewer views"
        )
    keys = torch.empty(capacity, dtype=torch.int32, device=device)
    splats = torch.empty(capacity, dtype=torch.int32, device=device)
    fill_kernel[(triton.cdiv(capacity, BLOCK.value),)](
        rects, order, ends, keys, splats, max(total, 1), slots, capacity, columns, tiles, slots.bit_length()
    )
    keys, permutation = torch.sort(keys, stable=True)
    bounds = torch.arange(views * tiles + 1, dtype=torch.int32, device=device)
    return splats[permutation], torch.searchsorted(keys, bounds, out_int32=True), found, capacity

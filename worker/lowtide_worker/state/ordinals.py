"""Sets of requests by ordinal: those a job carries, and those of them that have no result yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Ordinals:
    """A set of requests: the ordinals in [first, last), all of them or those of a bitmap."""

    first: int
    last: int
    bitmap: bytes | None = None
    """By ordinal minus `first`, most significant bit first, as Redis counts."""

    def __len__(self) -> int:
        if self.bitmap is None:
            return self.last - self.first
        return int.from_bytes(self.bitmap, "big").bit_count()

    def __iter__(self) -> Iterator[int]:
        if self.bitmap is None:
            yield from range(self.first, self.last)
            return
        for index, byte in enumerate(self.bitmap):
            if byte:
                base = self.first + 8 * index
                yield from (base + bit for bit in range(8) if byte & (0x80 >> bit))

    def aligned(self) -> Ordinals:
        """The same with a bitmap that begins at a whole byte of the batch's bitmaps."""
        lead, width = self.first % 8, self.last - self.first
        bitmap = (b"\xff" * (width // 8 + 1)) if self.bitmap is None else self.bitmap.ljust(width // 8 + 1, b"\0")
        bits = int.from_bytes(bitmap, "big") >> (8 * len(bitmap) - width)
        size = (lead + width + 7) // 8
        moved = (bits << (8 * size - lead - width)).to_bytes(size, "big")
        return Ordinals(first=self.first - lead, last=self.last, bitmap=moved)

    def runs(self) -> Iterator[tuple[int, int]]:
        """The same as consecutive ranges [first, last)."""
        start = end = None
        for ordinal in self if self.bitmap is not None else ():
            if ordinal != end:
                if start is not None and end is not None:
                    yield start, end
                start = ordinal
            end = ordinal + 1
        if self.bitmap is None:
            start, end = self.first, self.last
        if start is not None and end is not None:
            yield start, end


def missing(ordinals: Ordinals, settled: bytes) -> Ordinals | None:
    """Those of `ordinals` that are not settled; None where all are.

    `settled` is the batch's bitmap from the byte of `ordinals.first` to that of the last one; Redis leaves off bytes
    that were never set.
    """
    # Both bitmaps become integers that begin at ordinals.first.
    lead, width = ordinals.first % 8, ordinals.last - ordinals.first
    length = lead + width
    done = int.from_bytes(settled.ljust((length + 7) // 8, b"\0"), "big")
    done = (done >> (-length % 8)) & ((1 << width) - 1)
    if ordinals.bitmap is None:
        carried = (1 << width) - 1
    else:
        carried = int.from_bytes(ordinals.bitmap.ljust((width + 7) // 8, b"\0"), "big") >> (-width % 8)
    left = carried & ~done
    if not left:
        return None
    top = width - left.bit_length()
    low = (left & -left).bit_length() - 1
    kept = width - top - low
    bitmap = ((left >> low) << (-kept % 8)).to_bytes((kept + 7) // 8, "big")
    return Ordinals(first=ordinals.first + top, last=ordinals.last - low, bitmap=bitmap)


def divided(ordinals: Ordinals, at: int) -> tuple[Ordinals, Ordinals]:
    """Those of `ordinals` before `at`, and those from it on; both must have some."""
    if ordinals.bitmap is None:
        return Ordinals(first=ordinals.first, last=at), Ordinals(first=at, last=ordinals.last)
    lead, width, before = ordinals.first % 8, ordinals.last - ordinals.first, at - ordinals.first
    behind = (1 << (width - before)) - 1
    parts = []
    for settled in (behind, behind ^ ((1 << width) - 1)):
        length = (lead + width + 7) // 8
        part = missing(ordinals, (settled << (8 * length - lead - width)).to_bytes(length, "big"))
        if part is None:
            raise ValueError(f"there are no requests on one side of {at}")
        parts.append(part)
    return parts[0], parts[1]


def parted(ordinals: Ordinals, chosen: Iterable[int]) -> tuple[Ordinals | None, Ordinals | None]:
    """Those of `ordinals` that are chosen, and the others; None for none."""
    start = ordinals.first // 8 * 8
    bits = bytearray((ordinals.last - start + 7) // 8)
    for ordinal in chosen:
        if ordinals.first <= ordinal < ordinals.last:
            bits[(ordinal - start) // 8] |= 0x80 >> (ordinal - start) % 8
    return missing(ordinals, bytes(byte ^ 0xFF for byte in bits)), missing(ordinals, bytes(bits))

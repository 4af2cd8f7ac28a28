"""Writes x86_avx512_prefix_tiles.inc: Hamming distances of R rows by V vectors of 16 lanes.

    python lowbit/kernels/csrc/generate_prefix_tiles.py > x86_avx512_prefix_tiles.inc

Both operands are prefix coded along the depth: word j holds the xor of all words up to j. Then
y_j = row_j ^ lane_j is the running parity of the differences, and the distance is the number of
its changes, 2 * (changes from 0 to 1) - (last y). Of two further words m and n after o, at most
one changes from 0 to 1 in each bit, and ternlog finds it: (m & ~o) | (n & ~m). That is five
instructions (xor, xor, ternlog, popcnt, add) for two words, where xor, popcnt, add take six.

The accumulators, the last words and one spare register fill the register file; the last word of
each accumulator moves to the spare, first down the list and then up again, so that no moves are
needed. Compilers (gcc 12) spill here, which costs a quarter of the speed.
"""

SHAPES = ((1, 4), (1, 2), (2, 2), (3, 2), (4, 2), (5, 2))
WORD = 256  # bytes from one word to the next, in rows and in lanes


class Tile:
    def __init__(self, rows: int, vectors: int) -> None:
        self.rows, self.vectors = rows, vectors
        self.count = rows * vectors
        free = list(range(self.count, 32))

        def take(n: int) -> list[int]:
            return [free.pop(0) for _ in range(n)]

        self.last = take(self.count)
        self.spare = take(1)[0]
        self.lanes = [take(vectors), take(vectors)]
        self.row = take(2)
        self.temporaries = free
        self.lines: list[str] = []
        self.turn = 0

    def emit(self, line: str) -> None:
        self.lines.append(line)

    def pass_(self, word: int, up: bool, first: bool = False) -> None:
        """Two words from ``word`` on, over the accumulators from the first or from the last."""
        for w in range(2):
            for v, register in enumerate(self.lanes[w]):
                self.emit(f"vmovdqa32 {(word + w) * WORD + 64 * v}(%[lanes]), %%zmm{register}")
        order = range(self.count) if up else reversed(range(self.count))
        loaded = None
        for i in order:
            r, v = divmod(i, self.vectors)
            if r != loaded:
                loaded = r
                for w in range(2):
                    place = f"{(word + w) * WORD + 4 * r}(%[rows])"
                    self.emit(f"vpbroadcastd {place}, %%zmm{self.row[w]}")
            t = self.temporaries[self.turn % len(self.temporaries)]
            self.turn += 1
            last, spare = self.last[i], self.spare
            self.emit(f"vpxord %%zmm{self.lanes[0][v]}, %%zmm{self.row[0]}, %%zmm{t}")
            self.emit(f"vpxord %%zmm{self.lanes[1][v]}, %%zmm{self.row[1]}, %%zmm{spare}")
            if first:  # nothing before and nothing summed: m or n, counted
                self.emit(f"vpord %%zmm{spare}, %%zmm{t}, %%zmm{t}")
                self.emit(f"vpopcntd %%zmm{t}, %[d{i}]")
            else:
                self.emit(f"vpternlogd $0x3a, %%zmm{spare}, %%zmm{last}, %%zmm{t}")
                self.emit(f"vpopcntd %%zmm{t}, %%zmm{t}")
                self.emit(f"vpaddd %%zmm{t}, %[d{i}], %[d{i}]")
            self.last[i], self.spare = spare, last

    def close(self) -> None:
        """The accumulators become distances."""
        for i in range(self.count):
            t = self.temporaries[i % len(self.temporaries)]
            self.emit(f"vpopcntd %%zmm{self.last[i]}, %%zmm{t}")
            self.emit(f"vpaddd %[d{i}], %[d{i}], %[d{i}]")
            self.emit(f"vpsubd %%zmm{t}, %[d{i}], %[d{i}]")

    def function(self) -> str:
        self.pass_(0, up=True, first=True)
        self.emit("test %[fours], %[fours]")
        self.emit("jz 2f")
        self.emit(".p2align 5")
        self.emit("1:")
        self.pass_(2, up=False)
        self.pass_(4, up=True)
        self.emit(f"add ${4 * WORD}, %[lanes]")
        self.emit(f"add ${4 * WORD}, %[rows]")
        self.emit("dec %[fours]")
        self.emit("jnz 1b")
        self.emit("2:")
        self.emit("test %[two], %[two]")
        self.emit("jz 3f")
        before = list(self.last)
        self.pass_(2, up=False)
        self.close()
        self.emit("jmp 4f")
        self.emit("3:")
        self.last = before
        self.close()
        self.emit("4:")
        body = "\n".join(f'      "{line}\\n"' for line in self.lines)
        outs = ", ".join(f'[d{i}] "=&v"(d[{i}])' for i in range(self.count))
        clobbers = ", ".join(f'"zmm{i}"' for i in range(self.count, 32))
        return (
            f"__attribute__((always_inline)) inline void prefix_tile(\n"
            f"    const uint8_t* lanes, const uint8_t* rows, long kw, __m512i (&d)[{self.count}],\n"
            f"    Shape<{self.rows}, {self.vectors}>) {{\n"
            f"  long fours = (kw - 2) / 4, two = (kw - 2) & 2;  // kw is even and at least 2\n"
            f"  asm volatile(\n{body}\n"
            f'      : {outs}, [lanes] "+r"(lanes), [rows] "+r"(rows), [fours] "+r"(fours)\n'
            f'      : [two] "r"(two)\n'
            f'      : "cc", "memory", {clobbers});\n'
            f"}}\n"
        )


def text() -> str:
    head = "// Written by generate_prefix_tiles.py; the explanation is there.\n"
    return head + "".join("\n" + Tile(*shape).function() for shape in SHAPES)


if __name__ == "__main__":
    print(text(), end="")

"""Take the headers of PyTorch's stable ABI, and the licences they carry, into third_party.

    python scripts/take_torch_headers.py SITE_PACKAGES_WITH_TORCH

Copies, unchanged, the headers that `ROOTS` include, however far down, whatever the platform.
Take them from the oldest torch that lowbit supports: what they declare is in every newer one.
"""

import argparse
import re
import shutil
from pathlib import Path

ROOTS = ("torch/csrc/stable/library.h", "torch/csrc/stable/ops.h", "torch/csrc/stable/tensor.h")
TARGET = Path(__file__).parents[1] / "third_party" / "torch_stable"


def closure(include: Path) -> list[str]:
    """Names, sorted, of the files under ``include`` that ``ROOTS`` reach."""
    seen: set[str] = set()
    todo = list(ROOTS)
    while todo:
        name = todo.pop()
        if name not in seen and (include / name).is_file():
            seen.add(name)
            todo += re.findall(r"#\s*include\s*<([^>]+)>", (include / name).read_text())
    return sorted(seen)


def licences(text: str) -> str:
    """PyTorch's own licence, and that of FP16, which its Half.h derives from."""
    own, bundled = text.split("The PyTorch repository and source distributions bundle", 1)
    fp16 = re.search(r"/third_party/FP16/LICENSE\n-+\n(.*?)\n+/pytorch/", bundled, re.DOTALL)
    assert fp16, "torch no longer lists the licence of FP16"
    why = "FP16, from which torch/headeronly/util/Half.h derives:"
    return "\n\n".join((own.strip(), why, fp16[1].strip())) + "\n"


def main(site: Path) -> None:
    include = site / "torch" / "include"
    (licence,) = site.glob("torch-*.dist-info/licenses/LICENSE")
    text = licences(licence.read_text())
    names = closure(include)
    shutil.rmtree(TARGET / "torch", ignore_errors=True)
    for name in names:
        (TARGET / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(include / name, TARGET / name)
    (TARGET / "LICENSE").write_text(text)
    version = licence.parents[1].name.removeprefix("torch-").removesuffix(".dist-info")
    size = sum((TARGET / name).stat().st_size for name in names)
    print(f"{len(names)} headers of torch {version}, {size} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("site", type=Path, help="the folder that pip put torch into")
    arguments = parser.parse_args()
    if not (arguments.site / "torch" / "include").is_dir():
        parser.error(f"{arguments.site}: no torch/include in it")
    main(arguments.site)

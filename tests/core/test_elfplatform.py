"""Which programs run on which platform."""

from __future__ import annotations

import pytest
from elffiles import ARM_HARD, ARM_SOFT, EM, FORMS, elf, mips_abiflags, program, x86_isa
from shiplap.core.elf import Elf, read_elf
from shiplap.core.elfplatform import description, expectation, misfit
from shiplap.core.entries import Bytes
from shiplap.core.platform import parse_platform


def judged(data: bytes, platform: str, path: bytes = b"bin/app") -> str | None:
    """Why the program does not run there; None when it does."""
    found = read_elf(Bytes(data))
    expected = expectation(parse_platform(platform))
    assert isinstance(found, Elf) and expected is not None
    return misfit(found, expected, path)


@pytest.mark.parametrize("platform", sorted(FORMS))
def test_of_all_architectures_a_platform_runs_its_own(platform: str) -> None:
    fitting = [one for one in sorted(FORMS) if judged(program(one, needed=True), f"linux/{platform}") is None]
    assert fitting == [platform]


@pytest.mark.parametrize(
    ("platform", "same"),
    [("linux/x86_64", "amd64"), ("linux/aarch64", "arm64"), ("linux/arm64/v8", "arm64"), ("linux/i386", "386"), ("linux/armhf", "arm")],
)
def test_other_words_for_a_platform_mean_the_same(platform: str, same: str) -> None:
    assert judged(program(same), platform) is None


def test_an_architecture_that_go_does_not_have_is_not_judged() -> None:
    assert expectation(parse_platform("linux/hexagon")) is None


@pytest.mark.parametrize(
    ("platform", "abi"),
    [("linux/arm", "hard"), ("linux/arm/v8", "hard"), ("linux/arm/v7", "hard"), ("linux/arm/v6", "hard"), ("linux/arm/v5", "soft")],
)
def test_a_variant_of_arm_has_one_float_abi(platform: str, abi: str) -> None:
    for flags, own in ((ARM_HARD, "hard"), (ARM_SOFT, "soft")):
        linked = program("arm", flags=flags, interpreter=b"/lib/ld.so")
        assert judged(linked, platform) == (None if own == abi else "the two cannot be mixed")
        assert (judged(program("arm", type=3, flags=flags, soname=True), platform) is None) == (own == abi)
        # A static program does not mix with others, and what says nothing is not accused.
        assert judged(program("arm", flags=flags), platform) is None
    assert judged(program("arm", flags=0x5000000, needed=True), platform) is None


@pytest.mark.parametrize(("level", "platforms"), [(1, "v1 v2 v3 v4"), (2, "v2 v3 v4"), (3, "v3 v4"), (4, "v4")])
def test_a_variant_of_amd64_runs_its_level_and_those_below(level: int, platforms: str) -> None:
    data = program("amd64", segments=(x86_isa(level),))
    for variant in ("v1", "v2", "v3", "v4"):
        fits = judged(data, f"linux/amd64/{variant}") is None
        assert fits == (variant in platforms.split())
    assert (judged(data, "linux/amd64") is None) == (level == 1)
    assert judged(data, "linux/amd64", b"usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v4/libc.so.6") is None


def test_riscv_and_loongarch_mix_double_only() -> None:
    for architecture, soft in (("riscv64", 1), ("loong64", 0x41)):
        assert judged(program(architecture, flags=soft, needed=True), f"linux/{architecture}") == "the two cannot be mixed"
        assert judged(program(architecture, flags=soft), f"linux/{architecture}") is None


def test_mips_is_held_to_a_float_abi_only_where_the_platform_names_one() -> None:
    hard, soft = (program("mipsle", needed=True, segments=(mips_abiflags(abi),)) for abi in (1, 3))
    assert judged(hard, "linux/mipsle") is judged(soft, "linux/mipsle") is None
    assert judged(hard, "linux/mipsle/hardfloat") is judged(soft, "linux/mipsle/softfloat") is None
    assert judged(hard, "linux/mipsle/softfloat") == judged(soft, "linux/mipsle/hardfloat") == "the two cannot be mixed"


@pytest.mark.parametrize(
    ("data", "platform", "reason"),
    [
        (program("386"), "linux/amd64", "it needs a kernel with IA32 emulation"),
        (elf(EM["amd64"], 32), "linux/amd64", "it needs a kernel with the x32 ABI"),
        (program("arm"), "linux/arm64", "it needs a processor and a kernel that still run 32-bit programs"),
        (program("mipsle"), "linux/mips64le", "it needs a kernel with the o32 ABI"),
        (elf(EM["s390x"], 32, ">"), "linux/s390x", "it needs a kernel that still runs 31-bit programs"),
        (program("amd64"), "linux/386", ""),
        (program("ppc64"), "linux/ppc64le", ""),
        (elf(EM["mips"], 32, "<", flags=0x20), "linux/mipsle", ""),  # n32 needs a 64-bit processor
        (elf(0x1234), "linux/amd64", ""),
    ],
)
def test_what_might_run_on_some_devices_after_all_is_foreign_and_says_so(data: bytes, platform: str, reason: str) -> None:
    assert judged(data, platform) == reason


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (program("arm", interpreter=b"/l"), "arm (32-bit little-endian, hard float)"),
        (program("arm"), "arm (32-bit little-endian)"),
        (program("amd64", segments=(x86_isa(3),)), "amd64 (64-bit little-endian, x86-64-v3)"),
        (elf(EM["mips"], 32, ">", flags=0x20), "mips n32 (32-bit big-endian)"),
        (elf(0x1234), "machine 4660 (64-bit little-endian)"),
        (elf(94, 32), "xtensa (32-bit little-endian)"),
    ],
)
def test_a_program_is_described_in_few_words(data: bytes, text: str) -> None:
    found = read_elf(Bytes(data))
    assert isinstance(found, Elf) and description(found) == text


def test_an_expectation_is_described_alike() -> None:
    assert str(expectation(parse_platform("linux/arm/v6"))) == "arm (32-bit little-endian, hard float)"
    assert str(expectation(parse_platform("linux/amd64/v3"))) == "amd64 (64-bit little-endian, x86-64-v3)"
    assert str(expectation(parse_platform("linux/arm64/v8"))) == "arm64 (64-bit little-endian)"

import pytest

from benchmarks.traffic import main_memory_bytes

MODULE = """
%other (x: f32[8]) -> f32[8] {
  %x.1 = f32[8]{0} parameter(0)
  ROOT %y.1 = f32[8]{0} add(%x.1, %x.1)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0:T(256)} parameter(0)
  %chip = f32[16]{0:T(256)S(1)} parameter(1)
LINE
}
"""


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("  %y = f32[8]{0:T(256)} fusion(%x, %chip), kind=kLoop, calls=%other", 32 + 32),
        ("  ROOT %y = f32[8]{0:T(256)S(1)} fusion(%chip), kind=kLoop, calls=%other", 0),
        ("  %y = (f32[8]{0}, /*index=1*/bf16[4]{0}) fusion(%chip), calls=%other", 32 + 8),
        ("  %y = (f32[8]{0:S(1)}, f32[8]{0}, u32[]{:S(2)}) copy-start(%x)", 32),
        ("  %y = (f32[8]{0}, f32[8]{0}, u32[]{:S(2)}) copy-start(%x)", 64),
        ("  %y = ((f32[8]{0}), f32[2]{0:S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:2]}", 8),
        ("  %y = f32[8]{0:S(1)} copy-done(%z)", 0),
        ("  %y = f32[8]{0} bitcast(%x)", 0),
        ("", 0),
    ],
)
def test_only_main_memory_counts(line, size):
    assert main_memory_bytes(MODULE.replace("LINE", line)) == size

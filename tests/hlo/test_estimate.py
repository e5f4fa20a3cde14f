"""An estimate of a program's time, against sums by hand over texts of the TPU compiler."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from kdjax.errors import InputError
from kdjax.hlo.chips import CHIPS, chip
from kdjax.hlo.estimate import SOURCES, TimeEstimate, estimate
from kdjax.hlo.execution import executed_collectives, executed_instructions
from kdjax.hlo.program_text import parse
from tests.hlo.tpu_programs import read

V5E = chip("v5e")
CLOCK = 197e12 / (2 * 4 * 128 * 128)
HBM = 819e9
LINK = 50e9
PEAK = 197e12


def of(text: str) -> TimeEstimate:
    return estimate(text, V5E)


def entry(*lines: str, before: str = "") -> str:
    """Write a program of these instructions."""
    body = "\n".join(f"  {line}" for line in lines)
    return f"HloModule jit_f\n{before}\nENTRY %main (x: f32[]) -> f32[] {{\n{body}\n}}\n"


def cycles(count: int) -> str:
    return f'backend_config={{"window_config":{{"estimated_cycles":"{count}"}}}}'


@pytest.mark.parametrize(
    ("name", "hertz"),
    [("v4", 1.05e9), ("v5e", 1.5e9), ("v5p", 1.75e9), ("v6e", 1.75e9), ("tpu7x", 2.2e9)],
)
def test_clock_follows_from_the_peak(name: str, hertz: float) -> None:
    assert chip(name).clock == pytest.approx(hertz, rel=0.005)
    assert chip(chip(name).kind) is CHIPS[name]


def test_unknown_chip_is_refused() -> None:
    with pytest.raises(InputError, match="'v9' is no TPU that is known, expected one of v4, v5e"):
        chip("v9")


def test_body_of_a_loop_counts_as_often_as_it_turns() -> None:
    actual = of(read("loop"))
    assert actual.by_source["compute"] == pytest.approx(6 * (11234 + 3551) / CLOCK)
    assert actual.by_source["collectives"] == pytest.approx(6 * 1024 * 2 * 2 * 3 / 4 / 2 / LINK)
    assert actual.by_source["moves"] == pytest.approx(128 * 1024 * 2 / HBM, rel=1e-3)
    # The copy that runs beside compute
    assert actual.hidden == pytest.approx(128 * 1024 * 2 / HBM, rel=1e-3)
    assert actual.seconds == pytest.approx(sum(actual.by_source[source] for source in SOURCES))
    assert {cost.turns for cost in actual.costs} == {1, 6}


def test_longest_operations_come_with_their_source() -> None:
    first, second = of(read("loop")).top(2)
    assert (first.name, second.name) == ("fusion.12", "broadcast_add_fusion.2")
    assert first.op_name == "jit(loop)/while/body/closed_call/dot_general"
    assert first.place.startswith("tests/hlo/tpu_programs.py:")
    assert first.seconds > second.seconds > 0


def test_branch_counts_by_its_longest_side() -> None:
    actual = of(read("branch"))
    assert "6336" in read("branch")
    assert actual.by_source["compute"] == pytest.approx(17193 / CLOCK)


def test_loop_of_unknown_length_leaves_no_estimate() -> None:
    actual = of(read("until"))
    assert actual.seconds is None
    (why,) = actual.unknown
    assert "a loop of unknown length (tests/hlo/tpu_programs.py:" in why
    # With its length noted, the loop counts by it.
    noted = read("until").replace("body=%", 'backend_config={"known_trip_count":{"n":"9"}}, body=%')
    assert of(noted).by_source["compute"] == pytest.approx(9 * actual.by_source["compute"])
    assert of(noted).unknown == ()


def test_gather_of_parameters_is_sent_once_around_the_ring() -> None:
    actual = of(read("fsdp"))
    whole = 4096 * 8192 * 2
    assert actual.by_source["collectives"] == pytest.approx(whole * 3 / 4 / 2 / LINK)
    assert actual.by_source["compute"] == pytest.approx(537478 / CLOCK)
    (only,) = executed_collectives(parse(read("fsdp")))
    assert (only.collective.kind, only.collective.bytes, only.turns) == ("all-gather", whole, 1)


def test_kernel_does_its_flops_at_half_the_peak() -> None:
    actual = of(read("kernel"))
    assert (
        actual.seconds
        == actual.by_source["custom_calls"]
        == pytest.approx(2 * 4 * 256**3 / (PEAK / 2))
    )


def test_kernel_takes_at_least_as_long_as_its_bytes() -> None:
    few = read("kernel").replace('"flops":"134217728"', '"flops":"5"')
    assert of(few).seconds == pytest.approx(2 * 4 * 256 * 256 * 2 / HBM)
    # More bytes than its operands and results have.
    many = few.replace('"bytes_accessed":"1048576"', '"bytes_accessed":"99999999"')
    assert of(many).seconds == pytest.approx(99999999 / HBM)


def test_kernel_inside_a_fusion_is_a_kernel() -> None:
    alone = read("kernel")
    # The same program, as the body of a fusion.
    inner = alone[alone.index("ENTRY") :].replace("ENTRY %main.1", "%inner")
    call = "ROOT %f = bf16[4,256,256]{2,1,0:T(8,128)(2,1)} fusion(%x.2), kind=kCustom, calls=%inner"
    text = entry("%x.2 = bf16[4,256,256]{2,1,0:T(8,128)(2,1)} parameter(0)", call, before=inner)
    assert of(text).by_source == of(alone).by_source


def test_kernel_of_unknown_flops_leaves_no_estimate() -> None:
    actual = of(read("kernel_without_cost"))
    assert actual.seconds is None
    assert "a kernel of unknown FLOPs" in actual.unknown[0]
    # With FLOPs counted in the traced program it is the kernel that has a note.
    counted = {("square", ((4, 256, 256),)): 2 * 4 * 256**3}
    assert estimate(read("kernel_without_cost"), V5E, counted).seconds == of(read("kernel")).seconds


def test_rows_of_a_table_move_without_the_table() -> None:
    actual = of(read("look_up"))
    seconds = {cost.name: cost.seconds for cost in actual.costs}
    # The whole table is fetched beside compute; the look-up itself moves its rows.
    assert seconds["copy-start"] == pytest.approx(30528 * 768 * 2 / HBM, rel=1e-3)
    assert seconds["gather_fusion"] == pytest.approx(4096 * 768 * 2 / HBM, rel=0.01)


def test_rows_added_to_a_table_move_without_the_table() -> None:
    before = """
%scattered (table: f32[30528,128], rows: s32[8], more: f32[8,128]) -> f32[30528,128] {
  %table = f32[30528,128]{1,0:T(8,128)} parameter(0)
  %rows = s32[8]{0:T(128)} parameter(1)
  %more = f32[8,128]{1,0:T(8,128)} parameter(2)
  ROOT %scatter = f32[30528,128]{1,0:T(8,128)} scatter(%table, %rows, %more), to_apply=%sum
}
"""
    text = entry(
        "%t = f32[30528,128]{1,0:T(8,128)} parameter(0)",
        "%r = s32[8]{0:T(128)} parameter(1)",
        "%m = f32[8,128]{1,0:T(8,128)} parameter(2)",
        "ROOT %f = f32[30528,128]{1,0:T(8,128)} fusion(%t, %r, %m), kind=kCustom, calls=%scattered",
        before=before,
    )
    assert of(text).seconds == pytest.approx((3 * 8 * 128 * 4 + 128 * 4) / HBM)


def test_arrays_in_vmem_move_at_hbms_rate_or_count_less() -> None:
    here = "f32[1024]{0:T(1024)S(1)}"
    there = "f32[1024]{0:T(1024)}"
    # From the chip to HBM, within HBM, and within the chip.
    text = "%x = {} parameter(0)", "ROOT %y = {} copy(%x)"
    for source, target, moved in ((here, there, 4096), (there, there, 8192), (here, here, 8192)):
        assert of(entry(text[0].format(source), text[1].format(target))).seconds == pytest.approx(
            moved / HBM
        )


def test_asynchronous_copy_counts_at_its_start() -> None:
    text = entry(
        "%x = f32[1024]{0:T(1024)} parameter(0)",
        "%s = (f32[1024]{0:T(1024)S(1)}, f32[1024]{0:T(1024)}, u32[]{:S(2)}) copy-start(%x)",
        "%d = f32[1024]{0:T(1024)S(1)} copy-done(%s)",
        "%t = ((f32[1024]{0:T(1024)}), f32[256]{0:T(256)S(1)}, s32[]{:S(2)}) slice-start(%x), "
        "slice={[0:256]}",
        "ROOT %e = f32[256]{0:T(256)S(1)} slice-done(%t)",
    )
    assert [(c.name, c.seconds) for c in of(text).costs] == [("s", 4096 / HBM), ("t", 1024 / HBM)]


def test_collective_in_several_fusions_counts_once_beside_their_work() -> None:
    """The compiler overlaps a gather with matmuls so: a fusion that starts it, some that go on with
    it, and an end."""
    part = """
%{0} (a: bf16[8,128]) -> bf16[32,128] {{
  %a{0} = bf16[8,128]{{1,0:T(8,128)(2,1)}} parameter(0)
  ROOT %g{0} = bf16[32,128]{{1,0:T(8,128)(2,1)}} all-gather(%a{0}), channel_id=3, replica_groups=[1,4]<=[4], {chain}
}}
"""  # noqa: E501
    chain = 'frontend_attributes={chain_id="7"}'
    line = "%{0} = bf16[32,128]{{1,0:T(8,128)(2,1)S(1)}} fusion(%x), kind=kCustom, calls=%c{0}"
    text = entry(
        "%x = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)",
        line.format("start"),
        line.format("between") + f", {cycles(5000)}",
        "ROOT " + line.format("end"),
        before="".join(
            part.format(f"c{name}", chain=chain) for name in ("start", "between", "end")
        ),
    )
    actual = of(text)
    # The end is free; the part between has its own cycles.
    assert [(cost.name, cost.source) for cost in actual.costs] == [
        ("start", "collectives"),
        ("between", "compute"),
    ]
    assert actual.seconds == pytest.approx(32 * 128 * 2 * 3 / 4 / 2 / LINK + 5000 / CLOCK)


@pytest.mark.parametrize(
    ("kind", "type_", "moved"),
    [
        ("all-reduce", "f32[1000]", 4000 * 2 * 7 / 8),
        ("reduce-scatter", "f32[1000]", 8 * 4000 * 7 / 8),
        ("all-to-all", "f32[1000]", 4000 * 7 / 8),
        ("all-reduce-start", "f32[1000]", 4000 * 2 * 7 / 8),
        ("all-gather-start", "(f32[125], f32[1000])", 4000 * 7 / 8),
    ],
)
def test_collective_takes_the_time_of_a_ring(kind: str, type_: str, moved: float) -> None:
    text = entry(
        "%x = f32[1000] parameter(0)", f"ROOT %y = {type_} {kind}(%x), replica_groups=[1,8]<=[8]"
    )
    assert of(text).seconds == pytest.approx(moved / 2 / LINK)


def test_work_inside_a_fusion_is_the_fusions() -> None:
    before = """
%inner (a: f32[8]) -> f32[8] {
  %a = f32[8] parameter(0)
  ROOT %b = f32[8] negate(%a), backend_config={"window_config":{"estimated_cycles":"777"}}
}
"""
    call = "ROOT %f = f32[8] {}(%x), {}=%inner{}"
    fused = entry(
        "%x = f32[8] parameter(0)",
        call.format("fusion", "calls", f", {cycles(100)}"),
        before=before,
    )
    called = entry("%x = f32[8] parameter(0)", call.format("call", "to_apply", ""), before=before)
    assert of(fused).seconds == pytest.approx(100 / CLOCK)
    assert of(called).seconds == pytest.approx(777 / CLOCK)
    # Called on another core, it takes as long.
    for start, role in (("async-start", "calls"), ("call-start", "to_apply")):
        started = entry("%x = f32[8] parameter(0)", call.format(start, role, ""), before=before)
        assert of(started).seconds == of(called).seconds


def test_work_on_another_core_counts() -> None:
    """TPU7x's compiler gives look-ups to its SparseCores, whose cycles it does not know."""
    inner = f"ROOT %g = f32[8]{{0:T(256)}} gather(%t, %r), {cycles(2**63 - 1)}"
    before = f"""
%core (t: f32[9], r: s32[8]) -> f32[8] {{
  %t = f32[4096]{{0:T(256)}} parameter(0)
  %r = s32[8]{{0:T(256)}} parameter(1)
  {inner}
}}, execution_thread="sparsecore"
"""
    text = entry(
        "%x = f32[4096]{0:T(256)} parameter(0)",
        "%n = s32[8]{0:T(256)} parameter(1)",
        "%s = ((f32[4096]{0:T(256)}, s32[8]{0:T(256)}), f32[8]{0:T(256)}) call-start(%x, %n), "
        "to_apply=%core",
        "ROOT %d = f32[8]{0:T(256)} call-done(%s)",
        before=before,
    )
    assert [(c.name, c.source) for c in of(text).costs] == [("g", "moves")]
    assert of(text).seconds == pytest.approx(3 * 1024 / HBM)


def test_instructions_that_only_name_arrays_are_free() -> None:
    text = entry(
        "%x = f32[1024]{0:T(1024)} parameter(0)",
        "%b = f32[8,128]{1,0:T(8,128)} bitcast(%x)",
        '%c = f32[8,128]{1,0:T(8,128)} custom-call(%b), custom_call_target="ConcatBitcast"',
        "ROOT %t = (f32[8,128]) tuple(%c)",
    )
    assert of(text).costs == ()
    assert of(text).seconds == 0


def test_call_of_the_compilers_that_does_something_moves_its_bytes() -> None:
    text = entry(
        "%x = f32[1024]{0:T(1024)} parameter(0)",
        'ROOT %c = f32[1024]{0:T(1024)} custom-call(%x), custom_call_target="TopK"',
    )
    assert of(text).by_source == {
        "compute": 0,
        "custom_calls": 0,
        "collectives": 0,
        "moves": 8192 / HBM,
    }


def test_slower_memory_and_links_slow_only_their_own_sources() -> None:
    half = replace(V5E, hbm_bandwidth=HBM / 2, link_bandwidth=LINK / 2)
    whole = of(read("loop")).by_source
    slower = estimate(read("loop"), half).by_source
    assert slower["compute"] == whole["compute"]
    assert slower["moves"] == pytest.approx(2 * whole["moves"])
    assert slower["collectives"] == pytest.approx(2 * whole["collectives"])


def test_example_of_the_documentation_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[2]
    (example,) = re.findall(
        r"```python\n(.*?)```", (root / "docs" / "tpu.md").read_text(encoding="utf-8"), re.DOTALL
    )
    monkeypatch.chdir(root)
    exec(example, {})
    whole, longest, *_ = capsys.readouterr().out.splitlines()
    assert float(whole.split()[0]) > float(longest.split()[0]) > 0
    assert "compute jit(loop)/while/body/closed_call/dot_general" in longest


def test_executed_lists_instructions_with_their_turns() -> None:
    turns = {
        instruction.name: times for instruction, times in executed_instructions(parse(read("loop")))
    }
    assert turns["all-reduce.2"] == 6
    assert turns["while.11"] == turns["copy-start"] == 1

"""What a compiled program sends is read from its text: each form of each collective, held to a count by hand."""

from types import SimpleNamespace

import pytest

from benchmarks import collectives, lowering

OF_FOUR = "replica_groups={{0,1,2,3},{4,5,6,7}}"
PODS = '%a = (f32[6], u32[], token[]) send(%b, %c), _xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type='
LINES = {  # of a program: kind, bytes of the result, devices, and bytes that a device sends
    f"%a = f32[6]{{0}} all-reduce(%b), channel_id=1, {OF_FOUR}": ("all-reduce", 24, 4, 36),
    f"ROOT %a = (f32[6]{{0}}, /*index=1*/bf16[2,3]{{1,0}}) all-reduce(%b, %c), {OF_FOUR}": ("all-reduce", 36, 4, 54),
    f"%a = (f32[6], pred[]) all-reduce-start(%b, %c), {OF_FOUR}": ("all-reduce", 25, 4, 37.5),
    f"%a = ((f32[6]), f32[6], u32[]) all-reduce-start(%b), {OF_FOUR}": ("all-reduce", 24, 4, 36),
    "%a = f32[8]{0:T(1024)} all-gather(%b), replica_groups=[2,4]<=[4,2]T(1,0)": ("all-gather", 32, 4, 24),
    "%a = (f32[2]{0}, f32[8]{0:T(8)}) all-gather-start(%b), replica_groups=[2,4]<=[8]": ("all-gather", 32, 4, 24),
    f"%a = ((f32[2], bf16[4]{{0:T(4)(2,1)}}), (f32[8], bf16[16])) all-gather-start(%b, %c), {OF_FOUR}": (
        "all-gather", 64, 4, 48,
    ),
    "%a = f32[2] reduce-scatter(%b), replica_groups=mesh['x'=4,'y'=2] {'x'}": ("reduce-scatter", 8, 4, 24),
    "%a = (f32[2], f32[3]) reduce-scatter(%b, %c), replica_groups=mesh['x'=8] {'x':(1)4}": (
        "reduce-scatter", 20, 4, 60,
    ),
    f"%a = ((f32[8]), f32[2], u32[]) reduce-scatter-start(%b), {OF_FOUR}": ("reduce-scatter", 8, 4, 24),
    f"%a = f32[4,2]{{1,0}} all-to-all(%b), {OF_FOUR}, dimensions={{0}}": ("all-to-all", 32, 4, 24),
    f"%a = (f32[2], f32[2], f32[2], f32[2]) all-to-all(%b, %c, %d, %e), {OF_FOUR}": ("all-to-all", 32, 4, 24),
    f"%a = ((f32[8], f32[4]), (f32[8], f32[4]), u32[]) all-to-all-start(%b, %c), {OF_FOUR}": ("all-to-all", 48, 4, 36),
    "%a = s4[3] collective-permute(%b), source_target_pairs={{0,1},{1,0}}": ("collective-permute", 2, 2, 2),
    "%a = f32[3] collective-permute(%b), channel_id=1, source_target_pairs={{0,0},{1,1}}": (
        "collective-permute", 12, 1, 0,
    ),
    "%a = (f32[3], f32[3]{0:S(1)}, u32[]{:S(2)}, u32[]) collective-permute-start(%b), source_target_pairs={{2,5}}": (
        "collective-permute", 12, 2, 12,
    ),
    "%a = ((f32[3], f32[5]), (f32[3], f32[5]), u32[]) collective-permute-start(%b, %c), source_target_pairs={{0,1}}": (
        "collective-permute", 32, 2, 32,
    ),
    PODS + '"ALL_REDUCE"': ("all-reduce", 24, 2, 24),
    PODS + '"ALL_GATHER"': ("all-gather", 48, 2, 24),
    PODS + '"REDUCE_SCATTER"': ("reduce-scatter", 12, 2, 12),
}  # fmt: skip
NONE = (
    "%a = f32[8] all-gather-done(%b)",
    "%a = (f32[8], token[]) recv-done(%b), channel_id=3",
    '%a = f32[8] fusion(%all-gather.1), calls=%fused, metadata={op_name="jit(f)/ = f32[8] all-reduce(b)"}',
    "%a = (f32[6], u32[], token[]) send(%b, %c), channel_id=3, is_host_transfer=true",
)


def test_each_collective_is_counted_by_hand():
    for line, (kind, size, count, moved) in LINES.items():
        (found,) = collectives.of("  " + line)
        assert (*found, found.moved) == (kind, size, count, moved), line
    assert collectives.of("\n".join(NONE)) == []
    assert len(collectives.of("\n".join(LINES))) == len(LINES)


def test_a_collective_that_cannot_be_counted_says_so():
    (found,) = collectives.of("%a = f32[6] all-reduce(%b), replica_groups={}")
    with pytest.raises(ValueError, match="this all-reduce does not say its groups"):
        assert found.moved
    with pytest.raises(ValueError, match="transfer between pods must be one of"):
        collectives.of(PODS + '"ONE_TO_ONE"')


def test_a_collective_in_pieces_counts_once_and_a_sum_that_is_kept_in_parts_half():
    """The text of a TPU's program whose collectives share a channel: two gathers, each in three pieces."""
    piece = "all-gather(%a), channel_id=1, replica_groups={{0,1}}, dimensions={0}"
    pieces = "".join(
        f"""%fused.{i} (a: f32[3]) -> (f32[3], f32[6]) {{
  %all-gather.{i} = f32[6]{{0:T(128)}} {piece}
  ROOT %c.{i} = (f32[3]{{0}}, f32[6]{{0}}) custom-call(%all-gather.{i}), custom_call_target="AsyncCollectiveStart"
}}

%async_collective_fusion.{i} (a: f32[3], b: f32[6]) -> f32[6] {{
  %all-gather.{i}.0 = f32[6]{{0:T(128)}} {piece}
}}

%fused_computation.{i} (a: f32[3], b: f32[6]) -> f32[6] {{
  %all-gather.{i}.1 = f32[6]{{0:T(128)}} {piece}
  ROOT %d.{i} = f32[6]{{0}} custom-call(%a, %b, %all-gather.{i}.1), custom_call_target="AsyncCollectiveDone"
}}

"""
        for i in (1, 2)
    )
    text = f"""HloModule jit_step, num_partitions=2
{pieces}%all-reduce-scatter (a: f32[6]) -> f32[3] {{
  %c = f32[6]{{0}} all-reduce(%a), channel_id=1, replica_groups={{{{0,1}}}}, to_apply=%add
}}

ENTRY %main (a: f32[6]) -> f32[6] {{
  %d = f32[2]{{0}} collective-permute(%a), channel_id=1, source_target_pairs={{{{0,1}}}}
  %e = f32[2]{{0}} collective-permute(%b), channel_id=1, source_target_pairs={{{{0,1}}}}
}}"""
    permutes = [("collective-permute", 8, 2)] * 2
    assert collectives.of(text) == [("all-gather", 24, 2)] * 2 + [("reduce-scatter", 12, 2), *permutes]
    plan = SimpleNamespace(argument_size_in_bytes=5, temp_size_in_bytes=6)
    program = SimpleNamespace(
        as_text=lambda: text, memory_analysis=lambda: plan, cost_analysis=lambda: {"flops": 7.0, "bytes accessed": 8.0}
    )
    assert lowering.counted(program) == (2 * 12 + 12 + 2 * 8, 11, 7.0, 8.0)

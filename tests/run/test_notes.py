"""Notes on tensors that are left out: one line for each reason."""

from types import SimpleNamespace

from qdebug.run.session import notes_of


def test_tensors_left_out_for_one_reason_share_a_line() -> None:
    skipped = [(f"t{i}", "why") for i in range(54)] + [
        ("x\x1b", "else"),
        ("a", "two"),
        ("b", "two"),
    ]
    found = notes_of(SimpleNamespace(notes=["first"], skipped=skipped))  # type: ignore[arg-type]
    assert found == [
        "first",
        "54 tensors ('t0', 't1', 't2', ...) are left out: why",
        "'x\\x1b' is left out: else",
        "2 tensors ('a', 'b') are left out: two",
    ]

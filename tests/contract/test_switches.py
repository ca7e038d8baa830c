import pytest

from mooring.contract.switches import FALSE_WORDS, TRUE_WORDS, is_on


@pytest.mark.parametrize(
    ("text", "expected"),
    [*((word, True) for word in sorted(TRUE_WORDS)), *((word, False) for word in sorted(FALSE_WORDS))],
)
def test_every_word_reads_in_any_case(text: str, expected: bool) -> None:
    assert is_on({"SWITCH": f" {text.upper()} "}, "SWITCH") is expected


@pytest.mark.parametrize("variables", [{}, {"SWITCH": ""}, {"SWITCH": "maybe"}, {"OTHER": "true"}])
def test_what_does_not_say_yes_is_off(variables: dict[str, str]) -> None:
    assert not is_on(variables, "SWITCH")

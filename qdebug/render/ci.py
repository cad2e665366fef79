"""The result of a check as CI systems read it: JUnit XML, and GitHub's commands and summary."""

from collections.abc import Sequence
from xml.etree import ElementTree

from tabulate import tabulate

from qdebug.names import printable
from qdebug.render.markdown import code_span
from qdebug.report.limits import CheckResult, Failure

# GitHub shows at most ten annotations of a step.
_MOST_ANNOTATIONS = 10


def junit(result: CheckResult, suite: str, failures: Sequence[Failure] = ()) -> str:
    """JUnit XML: a case for each layer and limit; `failures` are those of a baseline.

    Names are printable, because XML has no control characters.
    """
    failed = [*result.failures, *failures]
    root = ElementTree.Element("testsuites")
    cases = ElementTree.SubElement(root, "testsuite", name=printable(suite))
    for case in result.cases:
        _case(cases, case.layer, case.figure, case.failure)
    for failure in failures:
        _case(cases, failure.layer, f"{failure.figure} against the baseline", failure)
    for problem in [*result.unknown, *result.unreadable]:
        element = ElementTree.SubElement(cases, "testcase", name="read", classname="qdebug")
        ElementTree.SubElement(element, "error", message=printable(problem))
    errors = len(result.unknown) + len(result.unreadable)
    cases.set("tests", str(len(cases)))
    cases.set("failures", str(len(failed)))
    cases.set("errors", str(errors))
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=True) + "\n"


def _case(cases: ElementTree.Element, layer: str, figure: str, failure: Failure | None) -> None:
    case = ElementTree.SubElement(cases, "testcase", name=figure, classname=printable(layer))
    if failure is not None:
        said = _said(failure)
        ElementTree.SubElement(case, "failure", message=said, type=failure.figure).text = said


def github(failures: Sequence[Failure]) -> str:
    """A workflow command for each failure, at most ten, and how many more there are."""
    lines = [
        f"::error title={_property(f'qdebug: {printable(each.layer)}')}::{_data(_said(each))}"
        for each in failures[:_MOST_ANNOTATIONS]
    ]
    if len(failures) > len(lines):
        lines.append(f"::error title=qdebug::and {len(failures) - len(lines)} more failures")
    return "".join(f"{line}\n" for line in lines)


def github_summary(failures: Sequence[Failure], checked: str) -> str:
    """A Markdown table of the failures, for ``$GITHUB_STEP_SUMMARY``."""
    rows = [
        (code_span(each.layer), each.figure, each.found, each.expected, code_span(each.origin))
        for each in failures
    ]
    headings = ("layer", "figure", "found", "limit", "from")
    text = tabulate(rows, headings, "pipe", disable_numparse=True) + "\n\n" if rows else ""
    return f"### qdebug check\n\n{text}{checked}\n"


def _said(failure: Failure) -> str:
    origin = printable(failure.origin)
    return f"{failure.figure} {failure.found}, expected {failure.expected} (from {origin})"


def _data(text: str) -> str:
    """Text as a workflow command takes it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")

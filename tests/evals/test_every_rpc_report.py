"""The report on bad requests says no more than the tests showed."""

from pathlib import Path

from quality.every_rpc import KINDS, claims, kept

REPORT = """<testsuites><testsuite>
<testcase name="test_a_malformed_request_names_its_field_and_the_next_works[Codec/Encode]"/>
<testcase name="test_a_late_request_ends_at_its_deadline_and_the_next_works[Codec/Encode]"/>
<testcase name="test_a_late_request_ends_at_its_deadline_and_the_next_works[Codec/Decode]"><failure/></testcase>
<testcase name="test_an_oversized_request_is_refused_and_the_next_works[Codec/Encode]"><skipped/></testcase>
<testcase name="test_the_table_has_every_method"/>
</testsuite></testsuites>"""


def test_failed_skipped_and_missing_checks_keep_no_promise(tmp_path: Path) -> None:
    junit = tmp_path / "report.xml"
    junit.write_text(REPORT)
    found = kept(junit)
    assert found["late"] == {"Codec/Encode": True, "Codec/Decode": False}
    held = {kind for kind in KINDS if claims(found)[f"every_rpc: {kind}"]}
    assert held == {"malformed"}

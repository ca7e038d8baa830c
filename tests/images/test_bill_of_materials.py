"""What our image holds by its files is what its own tools say it does."""

import json
from datetime import UTC, datetime

from containers import said
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from images import Images

from mooring.runner.image import inspect_image
from mooring.workbench.sbom.bill import bill_of_materials
from mooring.workbench.sbom.packages import Kind, Package
from mooring.workbench.sbom.survey import survey_image

VENV = "/opt/venv/"


def test_bill_of_our_image_names_what_pip_and_dpkg_name_in_it(images: Images) -> None:
    facts = inspect_image(images.inference)
    inventory = survey_image(facts, lambda _: None)
    installed = json.loads(said(images.inference, "pip", "list", "--format", "json"))
    ours = {each.key for each in inventory.packages if any(place.startswith(VENV) for place in each.locations)}
    assert {Package(Kind.PYTHON, each["name"], each["version"]).key for each in installed} <= ours
    form = "${Package} ${Version}\\n"
    listed = said(images.inference, "dpkg-query", "-W", "-f", form).splitlines()
    debian = [f"{each.name} {each.version}" for each in inventory.packages if each.kind is Kind.DEBIAN]
    assert sorted(debian) == sorted(listed)
    bill = bill_of_materials(inventory, datetime(2026, 1, 2, tzinfo=UTC))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None

"""An inventory as a bill of materials: CycloneDX 1.6, as JSON.

The same packages at the same time give the same bytes; also the serial number comes from what was found.
"""

import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime

from cyclonedx.model import ExternalReference, ExternalReferenceType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.component_evidence import ComponentEvidence, Occurrence
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseAcknowledgement, LicenseExpression
from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.spdx import is_expression, is_supported_id
from packageurl import PackageURL

from mooring import __version__
from mooring.runner.image import ImageFacts

from .packages import Inventory, Kind, Package

DECLARED = LicenseAcknowledgement.DECLARED
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"
# Ours among the properties; see https://cyclonedx.github.io/cyclonedx-property-taxonomy/.
PROPERTY = "mooring"


def bill_of_materials(inventory: Inventory, now: datetime) -> str:
    """Return the bill as JSON, one line for each value."""
    subject = _subject(inventory)
    components = [_component(package, inventory.system) for package in inventory.packages]
    if inventory.system.get("ID"):
        components.append(_system(inventory.system))
    bill = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, repr(inventory)),
        metadata=BomMetaData(
            timestamp=now,
            component=subject,
            lifecycles=[PredefinedLifecycle(LifecyclePhase.POST_BUILD)],
            tools=ToolRepository(
                components=[Component(name="mooring", version=__version__, type=ComponentType.APPLICATION)]
            ),
        ),
        components=components,
    )
    bill.register_dependency(subject, components)
    return f"{make_outputter(bill, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)}\n"


def _subject(inventory: Inventory) -> Component:
    image = inventory.image
    if image is None:
        return Component(name=inventory.subject, type=ComponentType.APPLICATION, bom_ref="subject")
    # The tag is what follows the last colon, unless that is a registry's port.
    match = re.fullmatch(r"(.+?)(?::([^:/]+))?", image.name.partition("@")[0])
    assert match is not None
    return Component(
        name=match[1],
        version=match[2] or image.id,
        type=ComponentType.CONTAINER,
        bom_ref="subject",
        purl=_image_url(image),
        pedigree=_pedigree(image.labels),
        properties=[Property(name=f"{PROPERTY}:{name}", value=value) for name, value in _image_properties(image)],
    )


def _image_url(image: ImageFacts) -> PackageURL | None:
    """Return the address by which registries know it, if one does: an image that was only built has no digest."""
    for reference in image.digests:
        repository, _, digest = reference.partition("@")
        name = repository.rpartition("/")[2].lower()
        qualifiers = {"arch": image.architecture, "repository_url": repository}
        return PackageURL("oci", None, name, digest, qualifiers)
    return None


def _pedigree(labels: Mapping[str, str]) -> Pedigree | None:
    if BASE_NAME not in labels:
        return None
    base = Component(name=labels[BASE_NAME], version=labels.get(BASE_DIGEST), type=ComponentType.CONTAINER)
    return Pedigree(ancestors=[base])


def _image_properties(image: ImageFacts) -> Iterator[tuple[str, str]]:
    yield "image:id", image.id
    yield "image:created", image.created
    yield "image:platform", f"{image.system}/{image.architecture}"
    for digest in image.digests:
        yield "image:digest", digest
    for name, value in sorted(image.labels.items()):
        yield f"image:label:{name}", value


def _system(system: Mapping[str, str]) -> Component:
    """Return the operating system, by which scanners choose the list of vulnerabilities to look into."""
    return Component(
        name=system["ID"],
        version=system.get("VERSION_ID"),
        type=ComponentType.OPERATING_SYSTEM,
        description=system.get("PRETTY_NAME"),
        bom_ref="operating-system",
    )


def _component(package: Package, system: Mapping[str, str]) -> Component:
    url = _package_url(package, system)
    reference = url.to_string()
    homepage = [XsUri(package.homepage)] if package.homepage else []
    # They are sorted by their references, in no order at all where they have none.
    places = [Occurrence(bom_ref=f"{reference}#{place}", location=place) for place in package.locations]
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.PLATFORM if package.kind is Kind.INTERPRETER else ComponentType.LIBRARY,
        bom_ref=reference,
        purl=url,
        cpe=f"cpe:2.3:a:python:python:{package.version}:*:*:*:*:*:*:*" if package.kind is Kind.INTERPRETER else None,
        supplier=OrganizationalEntity(name=package.supplier) if package.supplier else None,
        licenses=list(_licences(package.licences)),
        external_references=[ExternalReference(type=ExternalReferenceType.WEBSITE, url=page) for page in homepage],
        evidence=ComponentEvidence(occurrences=places),
        properties=(
            [Property(name=f"{PROPERTY}:licence-file", value=package.licence_file)] if package.licence_file else []
        ),
    )


def _package_url(package: Package, system: Mapping[str, str]) -> PackageURL:
    if package.kind is Kind.PYTHON:
        return PackageURL("pypi", None, package.name, package.version)
    if package.kind is Kind.INTERPRETER:
        return PackageURL("generic", None, package.name, package.version)
    family = system.get("ID", "debian")
    assert package.source is not None
    qualifiers = {
        "arch": package.architecture,
        "distro": f"{family}-{system['VERSION_ID']}" if "VERSION_ID" in system else None,
        # By this scanners find what is known of the source package, which is what Debian's security team names.
        "upstream": "@".join(package.source) if package.source != (package.name, package.version) else None,
    }
    given = {name: value for name, value in qualifiers.items() if value}
    return PackageURL("deb", family, package.name, package.version, given)


def _licences(licences: tuple[str, ...]) -> Iterator[License]:
    """Yield them as the format has them: one expression alone, or any number of names."""
    if len(licences) > 1 and all(map(is_expression, licences)):
        joined = " AND ".join(f"({licence})" if " OR " in licence else licence for licence in licences)
        yield LicenseExpression(joined, acknowledgement=DECLARED)
        return
    for licence in licences:
        if is_supported_id(licence):
            yield DisjunctiveLicense(id=licence, acknowledgement=DECLARED)
        elif len(licences) == 1 and is_expression(licence):
            yield LicenseExpression(licence, acknowledgement=DECLARED)
        else:
            yield DisjunctiveLicense(name=licence, acknowledgement=DECLARED)

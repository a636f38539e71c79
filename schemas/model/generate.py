#!/usr/bin/env python3
"""Write a `.model` file from a CQL model info, keeping only what a checker needs.

Usage: generate.py fhir-modelinfo-4.0.1.xml[.gz] > FHIR-4.0.1.model

Source of the facts: the model infos of HL7's Clinical Quality Language tools (cqframework), which
restate HL7's FHIR definitions (CC0). Descriptions and bindings are left out. What a profile fixes is
not in a model info; `FIXED` restates it from the QI-Core 4.1.1 and 6.0.0 and US Core guides.
"""

import gzip
import sys
import xml.etree.ElementTree as ElementTree

NS = "{urn:hl7-org:elm-modelinfo:r1}"
XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"

LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
CONDITION = "http://terminology.hl7.org/CodeSystem/condition-category"
DO_NOT_PERFORM = [
    "http://hl7.org/fhir/us/qicore/StructureDefinition/qicore-doNotPerform",
    "http://hl7.org/fhir/5.0/StructureDefinition/extension-DeviceRequest.doNotPerform",
]
CONCERN = "http://hl7.org/fhir/us/core/CodeSystem/condition-category"

# Last segment of a profile's URL: element, then `system|code` alternatives (no system: an element of type code).
VITALS = {
    "bmi": "39156-5", "bodyheight": "8302-2", "bodytemp": "8310-5", "bodyweight": "29463-7", "bp": "85354-9",
    "headcircum": "9843-4", "heartrate": "8867-4", "oxygensat": "2708-6", "resprate": "9279-1", "vitalspanel": "85353-1",
    "us-core-bmi": "39156-5", "us-core-body-height": "8302-2", "us-core-body-temperature": "8310-5",
    "us-core-body-weight": "29463-7", "us-core-blood-pressure": "85354-9", "us-core-head-circumference": "9843-4",
    "us-core-heart-rate": "8867-4", "us-core-respiratory-rate": "9279-1", "pediatric-bmi-for-age": "59576-9",
    "pediatric-weight-for-height": "77606-2", "head-occipital-frontal-circumference-percentile": "8289-1",
    "us-core-observation-pregnancystatus": "82810-3", "us-core-observation-pregnancyintent": "86645-9",
    "us-core-observation-occupation": "11341-5", "us-core-observation-sexual-orientation": "76690-7",
}
VITAL_SIGNS = {profile for profile in VITALS if not profile.startswith("us-core-observation")} | {"us-core-pulse-oximetry"}
FIXED = {profile: ("code", [f"{LOINC}|{code}"]) for profile, code in VITALS.items()}
FIXED |= {
    "us-core-pulse-oximetry": ("code", [f"{LOINC}|59408-5", f"{LOINC}|2708-6"]),
    "us-core-smokingstatus": ("code", [f"{LOINC}|72166-2", f"{SNOMED}|401201003", f"{SNOMED}|782516008"]),
    "us-core-vital-signs": ("category", [f"{CATEGORY}|vital-signs"]),
    "qicore-communicationnotdone": ("status", ["not-done"]),
    "qicore-immunizationnotdone": ("status", ["not-done"]),
    "qicore-procedurenotdone": ("status", ["not-done"]),
    "qicore-mednotadministered": ("status", ["not-done"]),
    "qicore-medicationadministrationnotdone": ("status", ["not-done"]),
    "qicore-mednotdispensed": ("status", ["declined"]),
    "qicore-medicationdispensedeclined": ("status", ["declined"]),
    "qicore-mednotrequested": ("doNotPerform", ["true"]),
    "qicore-medicationnotrequested": ("doNotPerform", ["true"]),
    "qicore-servicenotrequested": ("doNotPerform", ["true"]),
    # The modifier turns the meaning round: a request not to do something is no request to do it.
    "qicore-medicationrequest": ("doNotPerform", ["!true"]),
    "qicore-servicerequest": ("doNotPerform", ["!true"]),
    "qicore-devicenotrequested": ("modifierExtension", [f"{url}|true" for url in DO_NOT_PERFORM]),
    "qicore-devicerequest": ("modifierExtension", [f"{url}|!true" for url in DO_NOT_PERFORM]),
    # In FHIR R4 itself a request for a device has no element that says so.
    "DeviceRequest": ("modifierExtension", [f"{url}|!true" for url in DO_NOT_PERFORM]),
    "qicore-observationnotdone": ("status", ["cancelled"]),
    "qicore-observationcancelled": ("status", ["cancelled"]),
    "qicore-tasknotdone": ("status", ["rejected"]),
    "qicore-taskrejected": ("status", ["rejected"]),
}
# What a diagnosis was recorded as: US Core wants the category, senders leave it out.
for guide in ("us-core", "qicore"):
    FIXED[f"{guide}-condition-encounter-diagnosis"] = ("category?", [f"{CONDITION}|encounter-diagnosis"])
    FIXED[f"{guide}-condition-problems-health-concerns"] = ("category?", [f"{CONDITION}|problem-list-item", f"{CONCERN}|health-concern"])


class Writer:
    """One model info, written line by line."""

    def __init__(self, root):
        self.root = root
        self.model = root.get("name")
        self.derived = root.get("targetUrl") is not None
        # Named restrictions of a System type that have no elements of their own: `AddressUse` is a String.
        self.aliases = {}
        for info in self.classes():
            base = info.get("baseType", "")
            if base.startswith("System.") and base != "System.Any" and not info.findall(f"{NS}element"):
                self.aliases[f"{self.model}.{info.get('name')}"] = base

    def classes(self):
        return [i for i in self.root.findall(f"{NS}typeInfo") if i.get(XSI_TYPE, "").endswith("ClassInfo") and " " not in i.get("name")]

    def short(self, name):
        """Names of the model itself are written without their qualifier, a restricted System type as that type."""
        name = self.aliases.get(name, name)
        return name.removeprefix(f"{self.model}.")

    def named(self, node):
        return self.short(f"{node.get('namespace')}.{node.get('name')}")

    def type_of(self, node):
        """The type of an element or specifier as text: `Coding`, `Coding*` (list), `A|B` (choice), `Interval<A>`."""
        kind = node.get(XSI_TYPE)
        named = node.get("elementType") or node.get("type")
        if kind == "ListTypeSpecifier":
            inner = self.short(named) if named else self.type_of(node.find(f"{NS}elementTypeSpecifier"))
            return f"({inner})*" if "|" in inner else f"{inner}*"
        if kind == "IntervalTypeSpecifier":
            point = node.get("pointType")
            return f"Interval<{self.short(point) if point else self.type_of(node.find(f'{NS}pointTypeSpecifier'))}>"
        if kind == "ChoiceTypeSpecifier":
            choices = node.findall(f"{NS}choice") or node.findall(f"{NS}type")
            return "|".join(self.type_of(choice) for choice in choices)
        if kind == "NamedTypeSpecifier":
            return self.named(node)
        child = node.find(f"{NS}elementTypeSpecifier")
        if named:
            return self.short(named)
        return self.type_of(child) if child is not None else "System.Any"

    def head(self):
        root = self.root
        url = root.get("targetUrl") or root.get("url")
        base = " FHIR 4.0.1" if self.derived else ""
        patient, birth = self.short(root.get("patientClassName")), root.get("patientBirthDatePropertyName")
        print(f"model {self.model} {root.get('version')} {url} {patient} {birth}{base}")

    def class_lines(self, info):
        name = info.get("name")
        if f"{self.model}.{name}" in self.aliases:
            print(f"alias {name} {self.aliases[f'{self.model}.{name}']}")
            return
        line = f"class {name} : {self.short(info.get('baseType', 'System.Any'))}"
        if info.get("target"):
            line += f" is {info.get('target')}"
        if info.get("retrievable") == "true":
            profile = info.get("identifier")
            line += f" retrieve {profile} {info.get('primaryCodePath', '-')}"
            path, codes = FIXED.get(profile.rsplit("/", 1)[-1], (None, []))
            if path:
                line += f" fixed {path} {','.join(codes)}"
            if profile.rsplit("/", 1)[-1] in VITAL_SIGNS and self.derived:
                line += f" fixed category? {CATEGORY}|vital-signs"
        print(line)
        for element in info.findall(f"{NS}element"):
            target = element.get("target")
            # `url='null'` is a slip of the publication: such an element cannot be found in data.
            suffix = f" = {target}" if target and "url='null'" not in target else ""
            if target and not suffix:
                continue
            print(f"  {element.get('name')} {self.type_of(element)}{suffix}")

    def write(self):
        self.head()
        for info in self.classes():
            self.class_lines(info)
        for info in self.classes():
            label = info.get("label")
            if self.derived and label and label != info.get("name") and info.get("retrievable") == "true":
                print(f"label {info.get('name')} {label}")
        for conversion in self.root.findall(f"{NS}conversionInfo"):
            names = [self.short(conversion.get(key)) for key in ("fromType", "toType", "functionName")]
            print("convert " + " ".join(names))


def main(path):
    opener = gzip.open if path.endswith(".gz") else open
    Writer(ElementTree.parse(opener(path, "rb")).getroot()).write()


main(sys.argv[1])

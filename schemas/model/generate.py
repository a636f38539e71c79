#!/usr/bin/env python3
"""Write a `.model` file from a CQL model info, keeping only what a checker needs.

Usage: generate.py fhir-modelinfo-4.0.1.xml[.gz] > FHIR-4.0.1.model

Source of the facts: the model infos of HL7's Clinical Quality Language tools (cqframework), which
restate HL7's FHIR definitions (CC0). Descriptions and bindings are left out.
"""

import gzip
import sys
import xml.etree.ElementTree as ElementTree

NS = "{urn:hl7-org:elm-modelinfo:r1}"
XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"


def qualified(specifier):
    return f"{specifier.get('namespace')}.{specifier.get('name')}"


def type_of(node, model):
    """The type of an element or specifier as text: `FHIR.Coding`, `FHIR.Coding*` (list), `A|B` (choice)."""
    if node.get("name") and node.get(XSI_TYPE) is None and node.tag != f"{NS}element":
        return short(qualified(node), model)
    named = node.get("elementType") or node.get("type")
    child = node.find(f"{NS}elementTypeSpecifier")
    if node.get(XSI_TYPE) == "ListTypeSpecifier":
        if named:
            return short(named, model) + "*"
        inner = type_of(child, model)
        return f"({inner})*" if "|" in inner else f"{inner}*"
    if node.get(XSI_TYPE) == "ChoiceTypeSpecifier":
        choices = node.findall(f"{NS}choice") or node.findall(f"{NS}type")
        return "|".join(type_of(choice, model) for choice in choices)
    if node.get(XSI_TYPE) == "NamedTypeSpecifier":
        return short(qualified(node), model)
    return short(named, model) if named else type_of(child, model)


def short(name, model):
    """Names of the model itself are written without their qualifier."""
    return name.replace(f"{model}.", "")


def main(path):
    opener = gzip.open if path.endswith(".gz") else open
    root = ElementTree.parse(opener(path, "rb")).getroot()
    model = root.get("name")
    patient, birth = root.get("patientClassName"), root.get("patientBirthDatePropertyName")
    print(f"model {model} {root.get('version')} {root.get('url')} {short(patient, model)} {birth}")
    for info in root.findall(f"{NS}typeInfo"):
        if info.get(XSI_TYPE) != "ClassInfo":
            continue
        head = f"class {info.get('name')} : {short(info.get('baseType', 'System.Any'), model)}"
        if info.get("retrievable") == "true":
            head += f" retrieve {info.get('identifier')} {info.get('primaryCodePath', '-')}"
        print(head)
        for element in info.findall(f"{NS}element"):
            target = element.get("target")
            suffix = f" = {target}" if target else ""
            print(f"  {element.get('name')} {type_of(element, model)}{suffix}")
    for conversion in root.findall(f"{NS}conversionInfo"):
        names = [short(conversion.get(key), model) for key in ("fromType", "toType", "functionName")]
        print("convert " + " ".join(names))


main(sys.argv[1])

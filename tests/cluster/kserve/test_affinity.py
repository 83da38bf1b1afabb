"""Which nodes the volume of a node group selects, and what quantities mean: as Kubernetes reads them."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.amounts import bytes_of
from cluster.kserve.affinity import selects


def of(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"nodeAffinity": {"required": {"nodeSelectorTerms": list(terms)}}}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


def named(name: str) -> dict[str, Any]:
    return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}


@pytest.mark.parametrize(
    ("volume", "selected"),
    [
        pytest.param(of(expression("gpu", "In", "h100", "h200")), True, id="one of the values"),
        pytest.param(of(expression("gpu", "In", "a100")), False, id="another value"),
        pytest.param(of(expression("gpu", "Exists")), True, id="the label exists"),
        pytest.param(of(expression("tpu", "DoesNotExist")), True, id="the label does not exist"),
        pytest.param(of(expression("gpu", "NotIn", "a100")), True, id="none of the values"),
        pytest.param(of(expression("count", "Gt", "4")), True, id="a greater number"),
        pytest.param(of(expression("count", "Lt", "8")), False, id="an equal number is not less"),
        pytest.param(of(expression("gpu", "Gt", "4")), False, id="no number"),
        pytest.param(of(expression("gpu", "In", "a100"), expression("gpu", "In", "h100")), True, id="the second of two terms"),
        pytest.param(
            of({"matchExpressions": [{"key": key, "operator": "Exists"} for key in ("gpu", "tpu")]}),
            False,
            id="one of two conditions",
        ),
        pytest.param(of(named("n1")), True, id="its name"),
        pytest.param(of(named("n2")), False, id="another name"),
        pytest.param(of({}), False, id="a term without conditions"),
        pytest.param({}, False, id="no affinity"),
    ],
)
def test_a_volume_selects_a_node_by(volume: dict[str, Any], selected: bool) -> None:
    assert selects(volume, "n1", {"gpu": "h100", "count": "8"}) is selected


@pytest.mark.parametrize("volume", [of(expression("gpu", "Near", "h100")), of({"matchExpressions": [{}]}), {"nodeAffinity": 1}])
def test_an_affinity_that_cannot_be_read_is_an_error(volume: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="nodeAffinity"):
        selects(volume, "n1", {})


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [("10Gi", 10 * 2**30), ("1.5T", 15 * 10**11), ("1e12", 10**12), (4096, 4096), ("1500m", 2), ("9E", 9 * 10**18)],
)
def test_a_quantity_is_bytes(quantity: object, expected: int) -> None:
    assert bytes_of(quantity) == expected


@pytest.mark.parametrize("quantity", ["", "10GiB", "-1", "lots", None, True, 1.5, "1e999", "1" * 50])
def test_what_is_no_quantity_is_an_error(quantity: object) -> None:
    with pytest.raises(ValueError, match="is not a quantity; write 100Gi"):
        bytes_of(quantity)


def test_a_quantity_beyond_all_counting_is_the_most_that_is_counted() -> None:
    assert bytes_of("9e99") == 2**63 - 1

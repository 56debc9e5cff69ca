"""Lineage as OpenLineage events, made of the client's own classes (extra `openlineage`). Nothing is sent anywhere.

A stage that was computed is a COMPLETE event of a run; one that was not, and an endpoint, are events of a job. The
namespace is the project; datasets are named by their path in it and have the hash of their content as version.
https://openlineage.io/spec
"""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import msgspec

from mlstack import __version__
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.provenance.lineage import Edge, Lineage, Node
from mlstack.provenance.read import Provenance
from mlstack.spec.address import Address, Kind

PRODUCER = f"https://pypi.org/project/mlstack/{__version__}"


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the making of one stage's result; `at` is ISO 8601."""

    at: str
    provenance: Provenance | None = None


def lineage_events(lineage: Lineage, moments: Mapping[Address, Moment], *, now: str) -> list[str]:
    """Return the events as JSON, one each, in the order of the file. Raises `MlstackError` without the client."""
    try:
        from openlineage.client import event_v2
        from openlineage.client.serde import Serde
    except ImportError as error:
        raise MlstackError(
            Diagnostic(
                code="openlineage-not-installed",
                summary="The OpenLineage client is not installed",
                detail=f"Its classes make the events: {error}.",
                hint="Install it with mlstack:",
                command="pip install 'mlstack[openlineage]'",
            )
        ) from error
    event_v2.set_producer(PRODUCER)
    return [Serde.to_json(event) for event in _events(lineage, moments, now)]


def _events(lineage: Lineage, moments: Mapping[Address, Moment], now: str) -> Iterator[Any]:
    from openlineage.client.event_v2 import Job, JobEvent, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import job_type_job

    for address, node in lineage.nodes.items():
        if node.kind not in (Kind.STAGE, Kind.ENDPOINT):
            continue
        into = [edge for edge in lineage.edges if edge.target == address]
        inputs = _inputs(lineage, node, into)
        outputs = _outputs(lineage, node)
        moment = moments.get(address)
        serving = node.kind is Kind.ENDPOINT
        facets: dict[str, Any] = {
            "jobType": job_type_job.JobTypeJobFacet(
                processingType="STREAMING" if serving else "BATCH",
                integration="MLSTACK",
                jobType="ENDPOINT" if serving else "STAGE",
            )
        }
        facets |= _code_facet(moment)
        job = Job(namespace=lineage.project, name=address, facets=facets)
        if node.version is None or moment is None:
            yield JobEvent(eventTime=now, job=job, inputs=inputs, outputs=outputs)
            continue
        run = Run(runId=str(uuid5(NAMESPACE_URL, f"urn:mlstack:run:{node.version}")))
        yield RunEvent(
            eventTime=moment.at, run=run, job=job, eventType=RunState.COMPLETE, inputs=inputs, outputs=outputs
        )


def _inputs(lineage: Lineage, node: Node, into: list[Edge]) -> list[Any]:
    from openlineage.client.event_v2 import InputDataset

    rows = dict(node.inputs)
    for edge in into:
        path = edge.path or (lineage.nodes[edge.source].path if edge.source in lineage.nodes else "")
        if path:
            rows[path] = edge.version or rows.get(path, "")
    return [
        InputDataset(namespace=lineage.project, name=path, facets=_dataset_facets(lineage, path, md5))
        for path, md5 in sorted(rows.items())
    ]


def _outputs(lineage: Lineage, node: Node) -> list[Any]:
    from openlineage.client.event_v2 import OutputDataset

    return [
        OutputDataset(namespace=lineage.project, name=path, facets=_dataset_facets(lineage, path, md5))
        for path, md5 in sorted(node.outputs.items())
    ]


def _dataset_facets(lineage: Lineage, path: str, md5: str) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset, datasource_dataset

    facets: dict[str, Any] = {}
    if md5:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=md5)
    declared = next((n for n in lineage.nodes.values() if n.kind is Kind.DATASET and n.path == path), None)
    if declared is not None and declared.source is not None:
        facets["dataSource"] = datasource_dataset.DatasourceDatasetFacet(name=declared.address, uri=declared.source)
    return facets


def _code_facet(moment: Moment | None) -> dict[str, Any]:
    from openlineage.client.facet_v2 import source_code_location_job

    code = moment.provenance.code if moment is not None and moment.provenance is not None else None
    if code is None or code.commit is None or "://" not in code.remote:
        return {}
    facet = source_code_location_job.SourceCodeLocationJobFacet(
        type="git", url=code.remote, repoUrl=code.remote, version=code.commit
    )
    return {"sourceCodeLocation": facet}

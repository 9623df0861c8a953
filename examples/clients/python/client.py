"""Asks a coordinator for an analysis, watches it, and builds a pandas DataFrame with WeightWatcher's column names.

    python -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python -m grpc_tools.protoc -I ../../../proto --python_out=gen --grpc_python_out=gen \
        ../../../proto/spectrald/v1/*.proto                                     # into an existing folder gen
    PYTHONPATH=gen venv/bin/python client.py 127.0.0.1:7600 /models/model.safetensors

Options: --all asks for every column, --csv FILE writes the DataFrame. Ends with 0, or with 1 and the reason on stderr.
This is for a coordinator on loopback. Elsewhere the channel is a grpc.secure_channel, and every call takes
metadata=[("authorization", "Bearer TOKEN")].
"""

import argparse
import random
import sys
import time
import uuid

import grpc
import pandas as pd
from google.protobuf.descriptor import FieldDescriptor as Field
from spectrald.v1 import analysis_pb2, analysis_pb2_grpc, layer_pb2

TRIES = 5  # of a call that finds nobody
WATCH_TRIES = 30  # of a watch without a message between: as long as a coordinator takes to start again
WATCH_SECONDS = 60  # after which a watch is begun anew, so that a dead connection is noticed
UNAVAILABLE, DEADLINE_EXCEEDED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED
# Whole numbers stay whole beside absent ones, of which float64 would not keep the last digits of a seed.
NUMBERS = {Field.CPPTYPE_DOUBLE: "float64", Field.CPPTYPE_INT64: "Int64", Field.CPPTYPE_UINT64: "UInt64"}


class Failed(Exception):
    """The analysis ended otherwise than well."""


def pause(attempt):
    """0.1 to 1 s, with jitter so that many clients do not come back together."""
    time.sleep(min(1.0, 0.1 * 2 ** min(attempt, 4)) * random.uniform(0.5, 1.0))


def retried(call):
    """The call's answer; tried again while nobody is there. Every call of the API may be repeated."""
    for attempt in range(TRIES):
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() != UNAVAILABLE or attempt == TRIES - 1:
                raise
            pause(attempt)


def create(stub, model, options):
    """The new analysis. Thanks to request_id, a request that is sent twice makes one analysis."""
    request = analysis_pb2.CreateAnalysisRequest(model=model, options=options, request_id=str(uuid.uuid4()))
    return retried(lambda: stub.CreateAnalysis(request, timeout=30)).analysis


def watch(stub, analysis_id):
    """Follows the analysis to its end and gives it as it then stands. A watch that breaks off is resumed where it was."""
    sequence, silent = 0, 0
    while True:
        request = analysis_pb2.WatchAnalysisRequest(id=analysis_id, after_sequence=sequence)
        try:
            for message in stub.WatchAnalysis(request, timeout=WATCH_SECONDS):
                sequence, silent = message.sequence, 0
                analysis = message.analysis
                for layer in message.layers:
                    print(f"row: {layer.name}")
                state = analysis_pb2.AnalysisState.Name(analysis.state).removeprefix("ANALYSIS_STATE_").lower()
                print(f"{state}: {analysis.progress.done}/{analysis.progress.layers} layers {analysis.waiting_detail}".rstrip(), flush=True)
                if analysis.state in (analysis_pb2.ANALYSIS_STATE_SUCCEEDED, analysis_pb2.ANALYSIS_STATE_FAILED,
                                      analysis_pb2.ANALYSIS_STATE_CANCELLED):
                    return analysis
        except grpc.RpcError as error:
            if error.code() not in (UNAVAILABLE, DEADLINE_EXCEEDED) or silent == WATCH_TRIES:
                raise
        silent += 1
        pause(silent)


def rows(stub, analysis_id):
    """All rows in the order of the model. A stream that breaks off is read again from its start."""
    request = analysis_pb2.StreamLayerResultsRequest(id=analysis_id)
    return retried(lambda: [row for message in stub.StreamLayerResults(request, timeout=300) for row in message.layers])


def columns(descriptor, groups):
    """Fields by their JSON names, which are WeightWatcher's column names, as (name, group or None, field). Groups
    (erg, mp, …) are messages of their own; their fields lie beside the others."""
    for field in descriptor.fields:
        if field.message_type is None:
            yield field.json_name, None, field
        elif field.name in groups:
            yield from ((inner.json_name, field.name, inner) for inner in field.message_type.fields)


def cell(message, field):
    """The field's value; None where it is absent, that is where it does not apply or could not be computed."""
    if field.enum_type is not None:
        name = field.enum_type.values_by_number[getattr(message, field.name)].name
        return name.removeprefix("LAYER_STATUS_").lower()
    if field.has_presence:
        return getattr(message, field.name) if message.HasField(field.name) else None
    value = getattr(message, field.name)
    return value if isinstance(value, (str, int, float, bool)) else list(value)


def data_frame(layers):
    """The rows, under WeightWatcher's column names; absent numbers are NaN or NA. Only groups that some row has."""
    descriptor = layer_pb2.LayerResult.DESCRIPTOR
    groups = {field.name for field in descriptor.fields if field.message_type and any(row.HasField(field.name) for row in layers)}
    table = {}
    for name, group, field in columns(descriptor, groups):
        cells = [cell(row if group is None else getattr(row, group), field) for row in layers]
        table[name] = pd.Series(cells, dtype="object" if field.is_repeated else NUMBERS.get(field.cpp_type, "object"))
    return pd.DataFrame(table)


def wire_fields(data):
    """(number, value) of each field of an encoded message, of the two wire types that error details have."""
    def varint(at):
        value, shift = 0, 0
        while True:
            byte = data[at]
            value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                return value, at

    at = 0
    while at < len(data):
        key, at = varint(at)
        value, at = varint(at)
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        yield key >> 3, value


def error_info(error):
    """Reason, domain and metadata of the error's google.rpc.ErrorInfo, if it has one. googleapis-common-protos has the
    classes for this; read by hand, it is no further dependency."""
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in (dict(wire_fields(v)) for number, v in wire_fields(value) if number == 3):  # Status.details
            if detail[1] == b"type.googleapis.com/google.rpc.ErrorInfo":
                info = list(wire_fields(detail[2]))
                entries = [dict(wire_fields(v)) for number, v in info if number == 3]
                words = {number: v.decode() for number, v in info if number < 3}
                places = [f"{entry[1].decode()}={entry[2].decode()}" for entry in entries]
                return ", ".join([f"reason {words[1]}", f"domain {words[2]}", *sorted(places)])
    return "no details"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("addr")
    parser.add_argument("model")
    parser.add_argument("--all", action="store_true", help="every column")
    parser.add_argument("--csv", help="write the DataFrame to this file")
    args = parser.parse_args()
    options = analysis_pb2.AnalysisOptions(erg=args.all, mp=args.all, randomize=args.all, vectors=args.all)
    with grpc.insecure_channel(args.addr) as channel:
        stub = analysis_pb2_grpc.AnalysisServiceStub(channel)
        analysis = create(stub, args.model, options)
        print(f"analysis {analysis.id}")
        ended = watch(stub, analysis.id)
        if ended.state != analysis_pb2.ANALYSIS_STATE_SUCCEEDED:
            raise Failed(f"{ended.failure.message or 'cancelled'} (reason {ended.failure.reason or 'CANCELLED'})")
        frame = data_frame(rows(stub, analysis.id))
    if args.csv:
        frame.to_csv(args.csv, index=False)
    analysed = frame[frame["alpha"].notna()]
    print(analysed[["layer_id", "name", "N", "M", "Q", "alpha", "D", "xmin"]].to_string(index=False))
    print(f"mean alpha {analysed['alpha'].mean():.6f} over {len(analysed)} layers")


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"error: {error.code().name}: {error.details()} ({error_info(error)})")
    except Failed as failed:
        sys.exit(f"error: the analysis failed: {failed}")

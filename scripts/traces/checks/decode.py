"""Decodes a file by Perfetto's own definitions: python3 decode.py DEFINITIONS FILE

Every field must be known, and the file be no longer than what was understood. What a viewer accepts without a
word is checked here: each slice ends where it is open, each flow has both its ends once and in order. Prints
what there is as JSON.
"""

import json
import sys
from collections import Counter, defaultdict

sys.path.insert(0, sys.argv[1])
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent  # noqa: E402


def check(holds, what):
    if not holds:
        raise SystemExit(f"decode: {what}")


with open(sys.argv[2], "rb") as file:
    data = file.read()
trace = Trace()
trace.ParseFromString(data)
check(trace.ByteSize() == len(data), f"expected {len(data)} bytes, found {trace.ByteSize()}")
trace.DiscardUnknownFields()
check(trace.ByteSize() == len(data), "some fields are of no definition")
check(trace.IsInitialized(), "a required field is missing")

tracks = set()
names = set()
open_slices = defaultdict(list)
last = {}
sent, received = {}, {}
counts = Counter()
running = Counter()
for packet in trace.packet:
    sequence = packet.trusted_packet_sequence_id
    check(sequence != 0, "a packet of no sequence")
    for name in packet.interned_data.event_names:
        check((sequence, name.iid) not in names, f"name {name.iid} is declared twice")
        names.add((sequence, name.iid))
    if packet.HasField("track_descriptor"):
        check(packet.track_descriptor.uuid not in tracks, "a track is declared twice")
        parent = packet.track_descriptor.parent_uuid
        check(parent == 0 or parent in tracks, f"a track of track {parent}, which there is not")
        tracks.add(packet.track_descriptor.uuid)
    elif packet.HasField("track_event"):
        event = packet.track_event
        track, time = event.track_uuid, packet.timestamp
        check(packet.HasField("timestamp"), "an event without a time")
        check(track in tracks, f"an event of track {track}, which there is not")
        if event.type == TrackEvent.TYPE_SLICE_END:
            check(open_slices[track], f"track {track} ends a slice that is not open")
            check(time >= open_slices[track].pop(), "a slice ends before it begins")
        else:
            check((sequence, event.name_iid) in names, f"name {event.name_iid} is not declared")
            counts["slices"] += 1
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            open_slices[track].append(time)
        if event.type != TrackEvent.TYPE_INSTANT:
            check(time >= last.get(track, 0), f"track {track} goes back in time")
            last[track] = time
        for flow in event.flow_ids:
            check(flow not in sent, f"flow {flow} begins twice")
            sent[flow] = time
        for flow in event.terminating_flow_ids:
            check(flow not in received, f"flow {flow} ends twice")
            received[flow] = time
    elif packet.HasField("generic_kernel_task_state_event"):
        event = packet.generic_kernel_task_state_event
        if event.state == event.TASK_STATE_RUNNING:
            running[event.cpu] += 1
    else:
        check(False, f"a packet of nothing: {packet}")
check(not any(open_slices.values()), "a slice does not end")
check(sent.keys() == received.keys(), "a flow has one end")
check(all(sent[flow] < received[flow] for flow in sent), "a flow goes back in time")
print(
    json.dumps(
        {
            "packets": len(trace.packet),
            "slices": counts["slices"],
            "flows": len(sent),
            "running": [running[cpu] for cpu in range(max(running, default=-1) + 1)],
        }
    )
)

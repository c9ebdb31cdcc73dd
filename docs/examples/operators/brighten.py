"""Makes each picture brighter."""

import pyarrow as pa
from dora import DoraStatus


class Operator:
    def on_event(self, dora_event, send_output):
        if dora_event["type"] == "INPUT":
            bright = pa.array(dora_event["value"].to_numpy() + 100)
            send_output("picture", bright, {"number": dora_event["metadata"]["number"]})
        return DoraStatus.CONTINUE

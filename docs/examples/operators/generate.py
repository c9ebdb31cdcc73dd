"""Makes 20 grey pictures, one a tick."""

import numpy as np
import pyarrow as pa
from dora import DoraStatus

SIZE = 640 * 480


class Operator:
    def __init__(self):
        self.number = 0

    def on_event(self, dora_event, send_output):
        if dora_event["type"] == "INPUT":
            self.number += 1
            picture = pa.array(np.full(SIZE, self.number, dtype=np.uint8))
            address = picture.buffers()[1].address
            send_output("picture", picture, {"number": self.number, "address": address})
            if self.number == 20:
                return DoraStatus.STOP
        return DoraStatus.CONTINUE

"""How a message of dora lies in a recording: as protobuf that viewers show, and exact."""

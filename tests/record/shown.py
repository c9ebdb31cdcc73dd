"""What an independent reader of protobuf sees in a message of a recording."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

TIMES = ("google.protobuf.Timestamp", "google.protobuf.Duration")


def message_of(schema_name, schema, data):
    """Return a message as Google's library decodes it."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(schema).file:
        pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema_name))
    return kind.FromString(bytes(data))


def plain(message):
    """Return a message as a dictionary without absent fields; times in ns."""
    if message.DESCRIPTOR.full_name in TIMES:
        return message.seconds * 10**9 + message.nanos
    values = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        nested = field.type == field.TYPE_MESSAGE
        if field.is_repeated:
            values[field.name] = [plain(each) if nested else each for each in value]
        elif not field.has_presence or message.HasField(field.name):
            values[field.name] = plain(value) if nested else value
    return values


def seen(encoded):
    """Return what is in an encoded message, by field."""
    data = encoded.head + bytes(encoded.body) + encoded.tail
    return plain(message_of(encoded.kind.schema_name, encoded.kind.schema, data))

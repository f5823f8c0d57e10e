from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Token(_message.Message):
    __slots__ = ("id", "secret")
    ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    id: str
    secret: str
    def __init__(self, id: _Optional[str] = ..., secret: _Optional[str] = ...) -> None: ...

class Allowed(_message.Message):
    __slots__ = ("role", "name", "tenant", "pool")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    role: str
    name: str
    tenant: str
    pool: str
    def __init__(self, role: _Optional[str] = ..., name: _Optional[str] = ..., tenant: _Optional[str] = ..., pool: _Optional[str] = ...) -> None: ...

class Requests(_message.Message):
    __slots__ = ("client", "server")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    client: bytes
    server: bytes
    def __init__(self, client: _Optional[bytes] = ..., server: _Optional[bytes] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("token", "name", "requests", "replace")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    token: Token
    name: str
    requests: Requests
    replace: bool
    def __init__(self, token: _Optional[_Union[Token, _Mapping]] = ..., name: _Optional[str] = ..., requests: _Optional[_Union[Requests, _Mapping]] = ..., replace: _Optional[bool] = ...) -> None: ...

class Credentials(_message.Message):
    __slots__ = ("identity", "authority", "client", "server", "port")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    identity: str
    authority: bytes
    client: bytes
    server: bytes
    port: int
    def __init__(self, identity: _Optional[str] = ..., authority: _Optional[bytes] = ..., client: _Optional[bytes] = ..., server: _Optional[bytes] = ..., port: _Optional[int] = ...) -> None: ...

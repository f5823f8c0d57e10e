"""`harp token`, `harp role`: who may join the pool, and what members may do."""

from __future__ import annotations

import datetime

import click

from harp_api.control.v1 import access_pb2 as api
from harp_client.commands.forms import Column, Kind, output_option, show
from harp_client.commands.options import connect, pool_options
from harp_client.errors import HarpError
from harp_client.quantities import seconds
from harp_client.scheduler import Scheduler, request_id


def _time(when: float) -> str:
    return f"{datetime.datetime.fromtimestamp(when, datetime.UTC):%F %T} UTC"


TOKENS = Kind(
    "Token",
    "tokens",
    (
        Column("ID", lambda token: token.id),
        Column("STATE", lambda token: token.state),
        Column("ROLE", lambda token: token.role),
        Column("NAME", lambda token: token.name or "(any)"),
        Column("TENANT", lambda token: token.tenant or "-"),
        Column("USES", lambda token: token.uses_left),
        Column("UNTIL", lambda token: _time(token.expires)),
        Column("MADE BY", lambda token: token.creator, is_wide=True),
        Column("MADE", lambda token: _time(token.created), is_wide=True),
    ),
    key=lambda token: str(token.id),
)
ROLES = Kind(
    "Role",
    "roles",
    (
        Column("IDENTITY", lambda role: role.principal),
        Column("TENANT", lambda role: role.tenant),
        Column("ROLE", lambda role: role.role),
    ),
    key=lambda role: f"{role.principal} {role.tenant}",
)


@click.group()
def token() -> None:
    """Let servers, hosts and users join the pool (harp join).

    \b
    Examples:
      harp token create --role server
      harp token list
    """


@token.command("create")
@click.option(
    "--role",
    type=click.Choice(["server", "host", "user"]),
    required=True,
    help="What its bearer joins as.",
)
@click.option("--name", default="", help="The only name that may join with it.")
@click.option("--tenant", default="", help="Of a user.  [default: default]")
@click.option("--ttl", default="1h", show_default=True, help="How long it is good for.")
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True)
@click.option("--token-only", is_flag=True, help="Print the token alone.")
@pool_options
def create_token(
    role: str,
    name: str,
    tenant: str,
    ttl: str,
    uses: int,
    token_only: bool,
    **pool: str | None,
) -> None:
    """Make a join token, and print the command that uses it.

    Whoever has it can join: pass it on in private. The command feeds it through standard input, as
    arguments of a command can be seen by every user of a machine. For admins of the pool; operators
    of a tenant may make those for its users.

    \b
    Examples:
      harp token create --role server --ttl 1h
      harp token create --role user --name alice --tenant research
    """
    scheduler = connect(**pool)
    made: api.CreatedToken = scheduler.call(
        "CreateToken",
        api.CreateTokenRequest(
            request_id=request_id(),
            role=role,
            name=name,
            tenant=tenant,
            ttl=seconds(ttl),
            uses=uses,
        ),
    )
    if token_only:
        click.echo(made.text)
        return
    times = "once" if uses == 1 else f"{uses} times"
    until = _time(made.token.expires)
    click.echo(f"token {made.token.id} lets a {role} join {times} until {until}:", err=True)
    host = scheduler.address.rpartition(":")[0]
    click.echo(f"harp join {host}:{made.join_port} --token-file - <<'END'\n{made.text}\nEND")


@token.command("list")
@output_option("table", "wide", "json", "yaml", "name")
@pool_options
def list_tokens(output: str, **pool: str | None) -> None:
    """List join tokens, without their secrets.

    \b
    Examples:
      harp token list
      harp token list -o json
    """
    show_tokens(connect(**pool), output)


def show_tokens(scheduler: Scheduler, output: str, headers: bool = True, name: str = "") -> None:
    """Prints the join tokens, or the one of this id."""
    answer: api.JoinTokens = scheduler.call("ListTokens", api.ListTokensRequest())
    chosen = [known for known in answer.tokens if name in ("", known.id)]
    if name and not chosen:
        raise HarpError(f"no token {name}", "harp get tokens", 3)
    show(TOKENS, chosen, output, headers)


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@pool_options
def revoke_token(token_id: str, **pool: str | None) -> None:
    """Let nobody join with a token any more. Who has joined with it stays.

    \b
    Examples:
      harp token revoke 5f3a9c01
    """
    request = api.RevokeTokenRequest(request_id=request_id(), id=token_id)
    connect(**pool).call("RevokeToken", request)
    click.echo(f"token {token_id}: revoked")


@click.command()
@click.argument("identity")
@pool_options
def revoke(identity: str, **pool: str | None) -> None:
    """Let IDENTITY in no more: its certificates count no longer, nor do tokens that it has made.

    The scheduler refuses it at once; servers end the sessions that began with its certificates. Who
    joins again, with a new token, is let in again.

    \b
    Examples:
      harp revoke spiffe://lab/tenant/research/user/alice
      harp revoke spiffe://lab/server/gpu1
    """
    request = api.RevokeIdentityRequest(request_id=request_id(), identity=identity)
    done: api.RevokedIdentity = connect(**pool).call("RevokeIdentity", request)
    click.echo(f"{identity}: {done.certificates} certificates and {done.tokens} tokens revoked")


@click.group()
def role() -> None:
    """Say what members may do, beside what users may in their own tenant.

    \b
    Examples:
      harp role list
      harp role grant spiffe://lab/tenant/research/user/alice operator --tenant research
    """


@role.command("grant")
@click.argument("identity")
@click.argument("role_name", metavar="ROLE")
@click.option("--tenant", help="Where; without it, in all tenants and the pool itself.")
@pool_options
def grant(identity: str, role_name: str, tenant: str | None, **pool: str | None) -> None:
    """Give IDENTITY a role: viewer, user, operator or admin, in place of one that it has there.

    \b
    Examples:
      harp role grant spiffe://lab/tenant/research/user/alice operator --tenant research
      harp role grant spiffe://lab/tenant/system/user/carol admin
    """
    asked = api.Role(principal=identity, tenant=tenant or "*", role=role_name)
    request = api.RoleRequest(request_id=request_id(), role=asked)
    answer: api.Roles = connect(**pool).call("GrantRole", request)
    show(ROLES, answer.roles, "table", True)


@role.command("revoke")
@click.argument("identity")
@click.option("--tenant", help="Where; without it, what it has in all tenants and the pool.")
@pool_options
def revoke_role(identity: str, tenant: str | None, **pool: str | None) -> None:
    """Take a role away.

    \b
    Examples:
      harp role revoke spiffe://lab/tenant/research/user/alice --tenant research
    """
    asked = api.Role(principal=identity, tenant=tenant or "*")
    connect(**pool).call("RevokeRole", api.RoleRequest(request_id=request_id(), role=asked))
    click.echo(f"{identity}: no role in {tenant or 'the pool'} any more")


@role.command("list")
@output_option("table", "wide", "json", "yaml", "name")
@pool_options
def list_roles(output: str, **pool: str | None) -> None:
    """List who has which role.

    \b
    Examples:
      harp role list
    """
    answer: api.Roles = connect(**pool).call("ListRoles", api.ListRolesRequest())
    show(ROLES, answer.roles, output, True)

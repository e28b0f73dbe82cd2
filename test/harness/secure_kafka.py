"""A private Kafka that wants to know who is there: TLS, client certificates,
SASL and access control, each on a listener of its own."""

import contextlib
import socket
import ssl

from harness import paths
from harness.certificates import Authority
from harness.kafka import Broker
from harness.processes import wait_until

ALICE, PASSWORD = "alice", "alice-Secret-1"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

SETTINGS = """
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
listener.name.mutual.ssl.principal.mapping.rules=RULE:^CN=(.*)$/$1/
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.{{name}}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{alice}="{password}";
listener.name.{{name}}.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{{name}}.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
""".format(alice=ALICE, password=PASSWORD)


class SecureBroker(Broker):
    """Broker.address is the plaintext listener, for administration: its user may do all.

    The others are in addresses, by name: "ssl" (any client may connect), "mutual" (client
    certificates), "sasl" (SASL over TLS); "expired", "wrong_host" and "unknown_authority" are
    like "ssl", with such a certificate; "redirecting" is plaintext and sends clients from localhost on to "elsewhere".
    """

    TLS = ("ssl", "mutual", "sasl", "expired", "wrong_host", "unknown_authority")

    def __init__(self, run_directory, name="secure-kafka"):
        super().__init__(run_directory, name)
        self.ports = {name: paths.free_port() for name in (*self.TLS, "redirecting")}
        self.elsewhere = f"127.0.0.1:{self.ports['redirecting']}"
        self.addresses = {name: f"localhost:{port}" for name, port in self.ports.items()}
        self.authority = Authority(self.directory, "authority")
        self.other_authority = Authority(self.directory, "other-authority")
        local = "DNS:localhost,IP:127.0.0.1"
        self.client = self.authority.issue(ALICE, password="key-Secret-1")
        self._servers = {
            **dict.fromkeys(("ssl", "mutual", "sasl"), self.authority.issue("server", local)),
            "expired": self.authority.issue("expired", local, expired=True),
            "wrong_host": self.authority.issue("elsewhere", "DNS:elsewhere.example"),
            "unknown_authority": self.other_authority.issue("stranger", local)}

    def listener_settings(self):
        """What of server.properties is about listeners."""
        trusted = self.directory / "trusted.pem"
        trusted.write_text(self.authority.pem)
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", "REDIRECTING": "PLAINTEXT"}
        lines = []
        for name in self.TLS:
            protocols[name.upper()] = "SASL_SSL" if name == "sasl" else "SSL"
            keystore = self._servers[name].keystore(self.directory / f"{name}.pem")
            prefix = f"listener.name.{name}.ssl"
            lines += [f"{prefix}.keystore.type=PEM", f"{prefix}.keystore.location={keystore}",
                      f"{prefix}.truststore.type=PEM", f"{prefix}.truststore.location={trusted}",
                      f"{prefix}.client.auth={'required' if name == 'mutual' else 'none'}"]
        own = f"PLAINTEXT://127.0.0.1:{self.port}"
        tls = ",".join(f"{name.upper()}://{self.addresses[name]}" for name in self.TLS)
        lines += [f"listeners={own},CONTROLLER://127.0.0.1:{self.controller_port},{tls},"
                  f"REDIRECTING://127.0.0.1:{self.ports['redirecting']}",
                  f"advertised.listeners={own},{tls},REDIRECTING://{self.elsewhere}",
                  "listener.security.protocol.map=" + ",".join(map(":".join, protocols.items()))]
        return "\n".join(lines) + SETTINGS.replace("{name}", "sasl")

    def set_password(self, password, user=ALICE):
        """Of both SCRAM mechanisms; PLAIN's is in the settings."""
        from confluent_kafka import admin
        for mechanism in (admin.ScramMechanism.SCRAM_SHA_256, admin.ScramMechanism.SCRAM_SHA_512):
            change = admin.UserScramCredentialUpsertion(user, admin.ScramCredentialInfo(mechanism, 4096),
                                                        password.encode())
            self._finish(self.admin().alter_user_scram_credentials([change]))

    def _is_ready(self):
        """It has shaken hands at each listener, too: the first time may take a busy machine seconds."""
        return super()._is_ready() and all(map(self._shakes_hands, self.TLS))

    def _shakes_hands(self, listener):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with (socket.create_connection(("127.0.0.1", self.ports[listener]), timeout=10) as connection,
                  context.wrap_socket(connection)):
                return True
        except OSError:
            return False

    def allow(self, topic, user=ALICE):
        self._finish(self.admin().create_acls(self._acls(topic, user)))
        self._wait_for_acls(topic, user, True)

    def forbid(self, topic, user=ALICE):
        self._finish(self.admin().delete_acls(self._acl_filters(topic, user)))
        self._wait_for_acls(topic, user, False)

    def _acl_filters(self, topic, user):
        from confluent_kafka.admin import AclBindingFilter
        return [AclBindingFilter(acl.restype, acl.name, acl.resource_pattern_type, acl.principal, acl.host,
                                 acl.operation, acl.permission_type) for acl in self._acls(topic, user)]

    def _wait_for_acls(self, topic, user, there):
        """The controller has answered for them; the broker hears of them a little later."""
        wait_until(lambda: all(bool(self.admin().describe_acls(acl, request_timeout=10).result()) == there
                               for acl in self._acl_filters(topic, user)), what=f"access control of topic {topic}")

    @contextlib.contextmanager
    def forbidden(self, topic, user=ALICE):
        self.forbid(topic, user)
        yield
        self.allow(topic, user)

    @staticmethod
    def _acls(topic, user):
        from confluent_kafka import admin
        return [admin.AclBinding(admin.ResourceType.TOPIC, topic, admin.ResourcePatternType.LITERAL,
                                 f"User:{user}", "*", operation, admin.AclPermissionType.ALLOW)
                for operation in (admin.AclOperation.READ, admin.AclOperation.DESCRIBE)]

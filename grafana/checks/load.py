"""A little load: people who register, log in, look, refresh and log out, and others who guess."""

import asyncio
import json
import random
import urllib.parse

AUTH = "/api/v1/auth"
PASSWORD = "Correct-Horse-9"
TIMEOUT = 40


class Load:
    """Clients of one server, each at an address of its own (X-Forwarded-For)."""

    def __init__(self, port, seed=7):
        self.port = port
        self.random = random.Random(seed)
        self.names = []
        self.sessions = []
        self.answers = {}
        self.tasks = set()

    def address(self):
        return f"198.51.{self.random.randrange(100)}.{self.random.randrange(1, 255)}"

    async def call(self, method, path, address=None, json_body=None, form=None, token=None):
        """One request on a connection of its own: status and JSON."""
        body, kind = b"", None
        if json_body is not None:
            body, kind = json.dumps(json_body).encode(), "application/json"
        elif form is not None:
            body, kind = urllib.parse.urlencode(form).encode(), "application/x-www-form-urlencoded"
        head = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Connection: close",
                f"X-Forwarded-For: {address or self.address()}", f"Content-Length: {len(body)}"]
        if kind:
            head.append(f"Content-Type: {kind}")
        if token:
            head.append(f"Authorization: Bearer {token}")
        status, content = 0, b""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
                answer = await asyncio.wait_for(reader.read(), TIMEOUT)
                start, _, content = answer.partition(b"\r\n\r\n")
                status = int(start.split(b" ", 2)[1])
            finally:
                writer.close()
        except (OSError, asyncio.TimeoutError, IndexError, ValueError):
            pass
        key = f"{method} {path} {status}"
        self.answers[key] = self.answers.get(key, 0) + 1
        try:
            return status, json.loads(content)
        except ValueError:
            return status, {}

    async def register(self):
        name = f"person{len(self.names)}x{self.random.randrange(10**9)}"
        status, _ = await self.call("POST", AUTH + "/register", json_body={
            "email": f"{name}@example.com", "username": name, "password": PASSWORD})
        if status == 201:
            self.names.append(name)

    async def login(self, right=True, address=None):
        name = self.random.choice(self.names)
        status, pair = await self.call("POST", AUTH + "/token", address, form={
            "username": name, "password": PASSWORD if right else "Wrong-Horse-9"})
        if status == 200:
            self.sessions.append(pair)
        return status

    async def me(self):
        if self.sessions:
            await self.call("GET", AUTH + "/me", token=self.random.choice(self.sessions)["access_token"])

    async def refresh(self):
        if self.sessions:
            old = self.sessions.pop(self.random.randrange(len(self.sessions)))
            status, new = await self.call("POST", AUTH + "/refresh",
                                          json_body={"refresh_token": old["refresh_token"]})
            if status == 200:
                self.sessions.append(new)

    async def logout(self):
        if self.sessions:
            pair = self.sessions.pop(self.random.randrange(len(self.sessions)))
            await self.call("POST", AUTH + "/logout", json_body={"refresh_token": pair["refresh_token"]})

    async def reuse(self):
        """A thief's refresh token: two generations old."""
        status, first = await self.call("POST", AUTH + "/token", form={
            "username": self.random.choice(self.names), "password": PASSWORD})
        if status != 200:
            return
        pair = first
        for _ in range(2):
            _, pair = await self.call("POST", AUTH + "/refresh",
                                      json_body={"refresh_token": pair.get("refresh_token", "")})
        await self.call("POST", AUTH + "/refresh", json_body={"refresh_token": first["refresh_token"]})

    async def forged(self):
        await self.call("GET", AUTH + "/me", token="not.a.token")

    async def scan(self, address=None):
        await self.call("GET", self.random.choice(["/wp-login.php", "/.env", "/admin"]), address)

    def spawn(self, work):
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def people(self, seconds, logins, others):
        """So many logins and so many other calls a second, whether they are answered or not."""
        others_of = [self.me] * 14 + [self.refresh] * 4 + [self.logout] + [self.forged] + [self.scan]
        await self.every(seconds, logins, lambda: self.login(self.random.random() < 0.93),
                         others, lambda: self.random.choice(others_of)())

    async def guessers(self, seconds, addresses, rate):
        """Wrong passwords from a few addresses, well over the limit of each; and a scanner."""
        homes = [f"203.0.113.{n + 1}" for n in range(addresses)]
        await self.every(seconds, rate, lambda: self.login(False, self.random.choice(homes)),
                         rate / 4, lambda: self.scan(homes[0]))

    async def every(self, seconds, *pairs):
        """Starts work at given rates, evenly over time."""
        loop = asyncio.get_running_loop()
        begun, due = loop.time(), [0.0] * (len(pairs) // 2)
        while (now := loop.time() - begun) < seconds:
            for at in range(len(due)):
                rate, work = pairs[2 * at], pairs[2 * at + 1]
                while rate and due[at] <= now:
                    self.spawn(work())
                    due[at] += self.random.expovariate(rate)
            await asyncio.sleep(0.01)

    async def settle(self):
        while self.tasks:
            await asyncio.sleep(0.05)


async def short(load):
    """Some of everything, for half a minute."""
    await asyncio.gather(*(load.register() for _ in range(12)))
    await asyncio.gather(*(load.login() for _ in range(12)))
    await load.people(10, 8, 20)
    await load.reuse()
    await asyncio.gather(load.people(10, 8, 20), load.guessers(10, 3, 12))
    await load.people(3, 5, 10)
    await load.settle()


async def story(load, say):
    """Quiet, busy, a rush past what the machine can do, then guessing."""
    say("quiet")
    for _ in range(6):
        await asyncio.gather(*(load.register() for _ in range(4)))
    await load.people(30, 2, 15)
    say("busy")
    await asyncio.gather(load.people(50, 26, 60), load.every(50, 0.5, load.register))
    say("a rush of logins")
    await load.people(40, 140, 60)
    say("quiet")
    await load.people(25, 3, 25)
    say("guessing of passwords")
    await asyncio.gather(load.people(35, 4, 30), load.guessers(35, 25, 25),
                         load.every(30, 0.12, load.reuse))
    say("quiet")
    await load.people(15, 3, 20)
    await load.settle()

# What python's own ways to the network do with a server on the other end of the wire; to be run under `toe run`.
import asyncio
import hashlib
import socket
import urllib.request

PEER = "192.0.2.1"
URL = f"http://{PEER}:8000/f"


def sum(data):
    return hashlib.md5(data).hexdigest()


def body(answer):
    return answer.split(b"\r\n\r\n", 1)[1]


print("urllib", sum(urllib.request.urlopen(URL).read()))
with socket.create_connection((PEER, 8000)) as s:
    s.sendall(b"GET /f HTTP/1.0\r\n\r\n")
    answer = b"".join(iter(lambda: s.recv(65536), b""))
    print("socket", sum(body(answer)), s.getpeername(), s.getsockname()[0])


async def main():
    reader, writer = await asyncio.open_connection(PEER, 8000)
    writer.write(b"GET /f HTTP/1.0\r\n\r\n")
    print("asyncio", sum(body(await reader.read())))
    writer.close()
    try:
        await asyncio.open_connection(PEER, 9)
    except OSError as e:
        print(type(e).__name__)
    status = lambda: urllib.request.urlopen(f"http://{PEER}:8000/").status
    print(await asyncio.gather(*[asyncio.to_thread(status) for _ in range(5)]))


asyncio.run(main())

// Perfetto's trace processor on standard input and output: the bytes of requests and replies, as its RPC has them.
//
//     node processor.mjs FOLDER     a folder of Perfetto's UI: engine_bundle.js, trace_processor.wasm
//
// The UI runs that bundle in a worker of the browser. It finds here what it needs of one: a place to hear of its port, and
// the file of its code.

// Before node 19 modules have no global of that name.
import { webcrypto as crypto } from "node:crypto";
import { readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import vm from "node:vm";

const folder = process.argv[2];

class FileRequest {
  open(_, name) {
    this.name = name;
  }
  send() {
    const bytes = readFileSync(join(folder, this.name));
    this.response = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  }
}

function write(bytes) {
  for (let at = 0; at < bytes.length; ) at += writeSync(1, bytes, at);
}

const worker = {
  console: { log: console.error, warn: console.error, error: console.error },
  location: { href: "" },
  performance,
  crypto,
  setTimeout,
  TextDecoder,
  TextEncoder,
  XMLHttpRequest: FileRequest,
  WorkerGlobalScope: class {},
  importScripts() {},
};
worker.self = worker;
vm.runInNewContext(readFileSync(join(folder, "engine_bundle.js"), "utf8"), worker);

// What runs there takes its own Uint8Array for one alone.
const Bytes = vm.runInContext("Uint8Array", worker);
const port = { postMessage: write };
worker.onmessage({ data: port });
process.stdin.on("data", (chunk) => port.onmessage({ data: Bytes.from(chunk) }));

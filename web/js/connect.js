// A server's streams as an engine's worker: what is posted goes over a WebSocket, and what comes back are its messages.
import { NetworkError } from "./errors.js";

/** The address of a server's socket: of the server itself, or of its /v1. */
export function socketOf(url) {
  const address = new URL(url);
  address.protocol = /^(https|wss):$/.test(address.protocol) ? "wss:" : "ws:";
  address.pathname = `${address.pathname.replace(/\/+$/, "").replace(/\/v1(\/engine)?$/, "")}/v1/engine`;
  address.search = address.hash = "";
  return address;
}

export class EngineSocket extends EventTarget {
  #socket;
  #server;
  /** What was posted before the socket was open. */
  #early = [];
  #open = false;
  #over = false;

  constructor(address) {
    super();
    this.#server = address.host;
    this.#socket = new WebSocket(address);
    this.#socket.addEventListener("open", () => {
      this.#open = true;
      for (const text of this.#early.splice(0)) this.#socket.send(text);
    });
    this.#socket.addEventListener("message", ({ data }) => this.#heard(data));
    this.#socket.addEventListener("close", ({ reason }) => this.#fail(this.#why(reason)));
  }

  postMessage(message) {
    const text = JSON.stringify(message);
    if (this.#open) this.#socket.send(text);
    else this.#early.push(text);
  }

  terminate() {
    this.#over = true;
    this.#socket.close();
  }

  #heard(text) {
    try {
      const data = JSON.parse(text);
      this.dispatchEvent(new MessageEvent("message", { data }));
    } catch {
      this.#fail(`the server at ${this.#server} has sent what is no message of brooklet; is it brooklet serve?`);
      this.terminate();
    }
  }

  #why(reason) {
    const told = reason ? `: ${reason}` : "";
    return this.#open
      ? `the connection to the server at ${this.#server} was lost${told}; connect again when it is there`
      : `the server at ${this.#server} could not be reached${told}; see that brooklet serve runs there, and that pages of this ` +
          "site may ask it (--cors-origin)";
  }

  #fail(why) {
    if (this.#over) return;
    this.#over = true;
    this.dispatchEvent(Object.assign(new Event("error"), { error: new NetworkError(why) }));
  }
}

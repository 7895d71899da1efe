// Models kept in the origin private file system: a file of bytes and a small one of facts for each.
// The facts say `complete` only once every byte is there, so that a tab killed at any moment leaves a part
// that the next load resumes.

const FOLDER = "brooklet";

async function folder(create) {
  const root = await navigator.storage.getDirectory();
  return root.getDirectoryHandle(FOLDER, { create });
}

async function keyOf(url) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(url));
  return Array.from(new Uint8Array(digest).subarray(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const nameOf = (url) => {
  const { pathname, hostname } = new URL(url);
  const last = pathname.split("/").filter(Boolean).at(-1) ?? hostname;
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
};

async function readFacts(handle) {
  try {
    const facts = JSON.parse(await (await handle.getFile()).text());
    return typeof facts?.url === "string" && Number.isFinite(facts.total) ? facts : undefined;
  } catch {
    return undefined; // half written: there is nothing to trust
  }
}

/** A whole copy that is kept, as a File with its facts. */
export async function kept(url) {
  try {
    const dir = await folder(false);
    const key = await keyOf(url);
    const facts = await readFacts(await dir.getFileHandle(`${key}.json`));
    if (!facts?.complete) return undefined;
    const file = await (await dir.getFileHandle(`${key}.gguf`)).getFile();
    return { facts, file };
  } catch {
    return undefined; // none is kept, or this browser keeps nothing
  }
}

/** Writes anew what is known of a whole copy. */
export async function noteKept(url, facts) {
  try {
    const handle = await (await folder(false)).getFileHandle(`${await keyOf(url)}.json`);
    const writable = await handle.createWritable();
    await writable.write(JSON.stringify(facts));
    await writable.close();
  } catch {
    // it cannot be written just now: it will be found out again
  }
}

export async function keptModels() {
  const models = [];
  try {
    const dir = await folder(false);
    for await (const [name, handle] of dir.entries()) {
      if (!name.endsWith(".json")) continue;
      const facts = await readFacts(handle);
      if (!facts) continue;
      const bytes = await dir
        .getFileHandle(name.replace(/json$/, "gguf"))
        .then((h) => h.getFile())
        .then((file) => file.size)
        .catch(() => 0);
      const { url, total, complete } = facts;
      models.push({ url, name: nameOf(url), bytes, total, complete: Boolean(complete) && bytes === total });
    }
  } catch {
    return []; // nothing has been kept yet, or this browser keeps nothing
  }
  return models.sort((a, b) => a.name.localeCompare(b.name));
}

export async function forgetModel(url) {
  const full = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href).href;
  try {
    const dir = await folder(false);
    const key = await keyOf(full);
    await dir.removeEntry(`${key}.gguf`); // fails while it is being written
    await dir.removeEntry(`${key}.json`);
    return true;
  } catch {
    return false;
  }
}

/** A part that is being downloaded: written in place, by one engine at a time. */
export class Part {
  #bytes;
  #facts;
  #dir;
  #key;

  /** Throws where this browser, or this thread, cannot; undefined while another engine has it. */
  static async open(url) {
    const part = new Part();
    part.#dir = await folder(true);
    part.#key = await keyOf(url);
    const open = async (suffix) => {
      const handle = await part.#dir.getFileHandle(`${part.#key}.${suffix}`, { create: true });
      if (!handle.createSyncAccessHandle) throw new Error("only workers can write to it in place");
      return handle.createSyncAccessHandle();
    };
    try {
      part.#bytes = await open("gguf");
      part.#facts = await open("json");
    } catch (error) {
      part.close();
      if (error.name === "NoModificationAllowedError") return undefined;
      throw error;
    }
    return part;
  }

  get size() {
    return this.#bytes.getSize();
  }

  facts() {
    const text = new Uint8Array(this.#facts.getSize());
    this.#facts.read(text, { at: 0 });
    try {
      return JSON.parse(new TextDecoder().decode(text));
    } catch {
      return undefined;
    }
  }

  note(facts) {
    const text = new TextEncoder().encode(JSON.stringify(facts));
    this.#bytes.flush();
    this.#facts.truncate(0);
    this.#facts.write(text, { at: 0 });
    this.#facts.flush();
  }

  /** When its bytes were last written; undefined where that is not told. */
  async modified() {
    this.#bytes.flush();
    const handle = await this.#dir.getFileHandle(`${this.#key}.gguf`);
    return handle.getFile().then(
      (file) => file.lastModified,
      () => undefined,
    );
  }

  truncate(size) {
    this.#bytes.truncate(size);
  }

  /** All of the bytes, or an error. */
  write(bytes, at) {
    const written = this.#bytes.write(bytes, { at });
    if (written !== bytes.length) throw new DOMException("the disk is full", "QuotaExceededError");
  }

  read(into, at) {
    return this.#bytes.read(into, { at });
  }

  close() {
    this.#bytes?.close();
    this.#facts?.close();
  }

  async remove() {
    this.close();
    for (const suffix of ["gguf", "json"]) await this.#dir.removeEntry(`${this.#key}.${suffix}`).catch(() => {});
  }
}

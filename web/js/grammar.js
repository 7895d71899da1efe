// Outputs that are held to JSON schemas, regular expressions and grammars. Their engine is a wasm of its own, which is
// loaded when the first such output is asked for.
import { BadOptionError, InternalError } from "./errors.js";

let engine;

async function engineOfGrammars(assets) {
  engine ??= startGrammars(assets).catch((error) => {
    engine = undefined;
    throw error;
  });
  return engine;
}

async function startGrammars(assets) {
  const place = assets && new URL("brooklet_grammar_bg.wasm", assets).href;
  try {
    const { default: init, Grammars: Engine } = await import("./brooklet_grammar.js");
    await init(place && { module_or_path: place });
    return Engine;
  } catch (error) {
    throw new InternalError(
      `brooklet_grammar_bg.wasm, which schema, regex and grammar need, could not be loaded${place ? ` from ${place}` : ""} ` +
        `(${error.message}): check the connection; the option assets names the folder in which the package's files lie`,
      { cause: error },
    );
  }
}

/** What errors call it. */
const KINDS = { schema: "JSON schema", regex: "regular expression", grammar: "grammar" };

/** The engine's sentences are strings; anything else has gone wrong in it. */
function sentences(name, other, work) {
  try {
    return work();
  } catch (error) {
    throw new BadOptionError(`${name}: ${typeof error === "string" ? error : other}`, { cause: error });
  }
}

/** The vocabulary of one model, sorted when it is first needed, and what holds outputs to grammars with it. */
export class Grammars {
  #tokens;
  #assets;
  #made;
  #freed = false;

  /** `tokens`: the model's, which are this one's from now on. */
  constructor(tokens, assets) {
    this.#tokens = tokens;
    this.#assets = assets;
  }

  async #make(name) {
    const Engine = await engineOfGrammars(this.#assets);
    const tokens = this.#tokens;
    const encode = (text) => tokens.encode(text);
    const make = () => new Engine(tokens.bytes(), tokens.lengths(), tokens.ends(), encode);
    const made = sentences(name, "the model's vocabulary is beyond the compiler of grammars", make);
    if (this.#freed) made.free();
    return made;
  }

  /** What holds one output to `source`, which is a `schema`, a `regex` or a `grammar`. */
  async matcher({ kind, source }) {
    this.#made ??= this.#make(kind).catch((error) => {
      this.#made = undefined;
      throw error;
    });
    const made = await this.#made;
    const beyond = `the ${KINDS[kind]} cannot be used: it is beyond the compiler of grammars`;
    return sentences(kind, beyond, () => made.matcher(kind, source));
  }

  free() {
    this.#freed = true;
    this.#made?.then((made) => made.free()).catch(() => {});
    this.#tokens.free();
  }
}

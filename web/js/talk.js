// The conversations of one engine: which of them has the cache, and what is heard of its answer. What was said is kept by
// whoever speaks (conversation.js); a conversation that has lost the cache is told anew.
import { BadOptionError, InternalError, aborted } from "./errors.js";

/** The engine of templates: a wasm of its own, which only conversations need. */
let templates;

async function engineOfTemplates(assets) {
  templates ??= startTemplates(assets).catch((error) => {
    templates = undefined;
    throw error;
  });
  return templates;
}

async function startTemplates(assets) {
  const place = assets && new URL("brooklet_template_bg.wasm", assets).href;
  try {
    const { default: init, Template } = await import("./brooklet_template.js");
    await init(place && { module_or_path: place });
    return Template;
  } catch (error) {
    throw new InternalError(
      `brooklet_template_bg.wasm, which conversations need, could not be loaded${place ? ` from ${place}` : ""} ` +
        `(${error.message}): check the connection; the option assets names the folder in which the package's files lie`,
      { cause: error },
    );
  }
}

/** Whether a template is given as text, not by its name. */
const isJinja = (template) => template !== undefined && /[{\n]/.test(template);

export class Talk {
  #core;
  #assets;
  #grammars;
  #current;
  #template;
  #think;
  /** Where the answer under way begins, and whether there is one. */
  #answer;

  constructor(core, { assets, grammars }) {
    this.#core = core;
    this.#assets = assets;
    this.#grammars = grammars;
  }

  /** None has it any more. */
  leave() {
    this.#current = this.#answer = undefined;
  }

  free() {
    this.#template?.free();
    this.#template = undefined;
  }

  async #converse({ id, options, template, think }) {
    this.leave();
    const core = this.#core;
    const source = isJinja(template) ? core.template(undefined, template) : core.template(template, undefined);
    const Template = await engineOfTemplates(this.#assets);
    const { text, bos, eos } = JSON.parse(source);
    const made = reading(() => new Template(text, bos, eos));
    const settings = JSON.stringify({ ...options, think });
    try {
      await core.converse(text, (variables) => made.render(variables), settings);
    } catch (error) {
      made.free();
      throw error;
    }
    this.free();
    this.#template = made;
    this.#current = id;
    this.#think = think;
  }

  /**
   * Begins an answer: `how` is "send", "regenerate" or "edit", `before` what was said before its turn, `text` the turn's
   * message. Without `before`, which only a "send" can do without, `untold` comes of it where another has the cache. Where `goOn` says no, the turn is taken back.
   */
  async begin({ how, before, text, settings: { held, ...settings }, ...conversation }, goOn) {
    const core = this.#core;
    const start = performance.now();
    const has = this.#current === conversation.id;
    if (!has && !before) return { untold: true };
    // Before anything is said: what cannot be used changes nothing.
    const rules = held && (await this.#grammars.matcher(held));
    const told = () => JSON.stringify(before.map(({ role, content }) => ({ role, content })));
    const answer = JSON.stringify(settings);
    let fed = has ? core.fed() : 0;
    let leftOut = has ? undefined : 0;
    let begun = true;
    try {
      if (!has) {
        await this.#converse(conversation);
        if (before.length) leftOut = await core.retell(told(), goOn);
      } else if (conversation.think !== this.#think) {
        core.think(conversation.think);
        this.#think = conversation.think;
      }
      if (!goOn()) throw aborted();
      if (!has || how === "send") begun = await core.say(text, answer, goOn, rules);
      else [begun, leftOut] = await core.again(told(), text, how === "edit", answer, goOn, rules);
      if (!begun && how !== "send") this.leave(); // the turn before is gone, too
    } catch (error) {
      this.leave(); // told anew when it speaks again
      throw error;
    }
    const retold = leftOut !== undefined && before?.length > 0;
    if (leftOut !== undefined) fed = 0;
    const { position } = this.#place();
    this.#answer = begun ? { id: conversation.id, from: position } : undefined;
    return {
      begun,
      fed: this.#current === undefined ? 0 : core.fed() - fed,
      retold,
      leftOut: leftOut ?? 0,
      ms: performance.now() - start,
    };
  }

  #place() {
    const position = this.#core.position();
    return { position, forgotten: this.#core.evicted() };
  }

  #heard(pieces, ended) {
    const { position, forgotten } = this.#place();
    const generatedTokens = position - this.#answer.from;
    if (ended) this.#answer = undefined;
    return { pieces, ended, position, forgotten, generatedTokens, window: this.#window() };
  }

  #window() {
    return JSON.parse(this.#core.window());
  }

  /** What is said until `most` milliseconds are over, or the answer is. */
  async hear(id, most, goOn) {
    if (this.#answer?.id !== id) throw new BadOptionError("this answer was ended by another, by a stream or by reset");
    const core = this.#core;
    const start = performance.now();
    const pieces = [];
    let firstMs;
    let ended;
    while (!ended && (pieces.length === 0 || performance.now() - start < most)) {
      if (!goOn()) {
        await this.#rest(pieces);
        ended = "aborted";
        break;
      }
      const said = await core.hear();
      firstMs ??= performance.now() - start;
      if (said) pieces.push({ text: said[0], thought: said[1] });
      else ended = core.ended() ?? "stopped";
    }
    return { ...this.#heard(pieces, ended), ms: performance.now() - start, firstMs };
  }

  /** Ends the answer where it is, and adds what was held back. */
  async #rest(pieces) {
    this.#core.hush();
    for (let said; (said = await this.#core.hear());) pieces.push({ text: said[0], thought: said[1] });
  }

  async hush(id) {
    if (this.#answer?.id !== id) return { pieces: [], ...this.#place() };
    const pieces = [];
    await this.#rest(pieces);
    return this.#heard(pieces, "stopped");
  }

  /** What the model can look back on; nothing where another has the cache. */
  window(id) {
    return this.#current === id ? this.#window() : undefined;
  }
}

/** The template's own mistakes are those of the model's file. */
function reading(work) {
  try {
    return work();
  } catch (error) {
    if (typeof error !== "string") throw error;
    throw Object.assign(new Error(`chat template: ${error}; template gives another`), { code: "bad-model" });
  }
}

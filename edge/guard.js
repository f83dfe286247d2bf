// What stands in front of an app whose gate is still being made, or was refused.

import { UNAVAILABLE } from "./gate.js";
import { answer } from "./web.js";

/** A gate to come. Without one, no request passes. */
export class Guard {
  /** The gate, once it is there. */
  gate;
  #coming;

  constructor(gate) {
    this.#coming = Promise.resolve(gate).then((made) => { this.gate = made; }, (error) => console.error(`stepgate: ${error?.message ?? error}`));
  }

  /** Waits for the gate; nothing where it was refused. */
  async ready() {
    await this.#coming;
    return this.gate;
  }

  /** Handles a request of the Fetch API. */
  handle(request, forward, context) {
    return this.gate ? this.gate.handle(request, forward, context) : this.#handleThen(request, forward, context);
  }

  async #handleThen(request, forward, context) {
    const gate = await this.ready();
    return gate ? gate.handle(request, forward, context) : answer(request, UNAVAILABLE);
  }
}

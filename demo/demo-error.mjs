/** A failure whose message tells a person all they need: it is shown without a stack. */
export class DemoError extends Error {}

// Signatures by WebCrypto. Where it has no say, the core checks in software.

/** How many keys are kept in WebCrypto's form. */
export const MAX_IMPORTED_KEYS = 128;

const RSA = "RSASSA-PKCS1-v1_5";

/** By `alg`: what a key is imported for, and what a signature is verified with. */
const ALGORITHMS = {
  RS256: [{ name: RSA, hash: "SHA-256" }, RSA],
  RS384: [{ name: RSA, hash: "SHA-384" }, RSA],
  RS512: [{ name: RSA, hash: "SHA-512" }, RSA],
  PS256: [{ name: "RSA-PSS", hash: "SHA-256" }, { name: "RSA-PSS", saltLength: 32 }],
  PS384: [{ name: "RSA-PSS", hash: "SHA-384" }, { name: "RSA-PSS", saltLength: 48 }],
  PS512: [{ name: "RSA-PSS", hash: "SHA-512" }, { name: "RSA-PSS", saltLength: 64 }],
  ES256: [{ name: "ECDSA", namedCurve: "P-256" }, { name: "ECDSA", hash: "SHA-256" }],
  EdDSA: [{ name: "Ed25519" }, "Ed25519"],
};

/** Keys in WebCrypto's form, imported once. */
export class KeyRing {
  #keys = new Map();

  /** Whether a signature is valid; nothing where WebCrypto does not say. `signed` is the message with the signature behind it. */
  async verify({ algorithm, key, messageBytes }, signed) {
    try {
      const [, verification] = ALGORITHMS[algorithm];
      const imported = await this.#imported(algorithm, key);
      return await crypto.subtle.verify(verification, imported, signed.subarray(messageBytes), signed.subarray(0, messageBytes));
    } catch {
      return undefined;
    }
  }

  #imported(algorithm, key) {
    const name = `${algorithm} ${key}`;
    const known = this.#keys.get(name);
    if (known) return known;
    if (this.#keys.size >= MAX_IMPORTED_KEYS) {
      const [oldest] = this.#keys.keys();
      this.#keys.delete(oldest);
    }
    const spki = Uint8Array.from(atob(key), (character) => character.charCodeAt(0));
    const imported = crypto.subtle.importKey("spki", spki, ALGORITHMS[algorithm][0], false, ["verify"]);
    this.#keys.set(name, imported);
    return imported;
  }
}

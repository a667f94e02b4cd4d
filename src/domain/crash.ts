/** The guest cannot go on; `message` is the reason that its user reads. */
export class DomainCrash extends Error {}

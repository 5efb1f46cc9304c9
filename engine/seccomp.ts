import profile from './seccomp/agent.json' with { type: 'json' }

/** The bundled profile as the engine's API wants it: text, not a path. */
export const SECCOMP: string = JSON.stringify(profile)

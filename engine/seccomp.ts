/** Our two seccomp profiles, as the engine's API wants them: text, not a path. */
import profile from './seccomp/agent.json' with { type: 'json' }

interface Rule {
  readonly names: readonly string[]
  readonly action: string
  readonly args?: readonly { readonly index: number; readonly value: number }[]
}

/**
 * What an ordinary program does without: shared objects that outlive a process, memory that is run as a file, scheduling, locked
 * memory, device nodes. Taken out of the default, so it is never wider. Changes of identity stay: without no-new-privileges runc makes
 * its own under the filter, and who has no capability gains nothing by them.
 */
const NOT_STRICT: ReadonlySet<string> = new Set([
  ...['msgctl', 'msgget', 'msgrcv', 'msgsnd', 'semctl', 'semget', 'semop', 'semtimedop', 'shmat', 'shmctl', 'shmdt', 'shmget'],
  ...['mq_getsetattr', 'mq_notify', 'mq_open', 'mq_timedreceive', 'mq_timedsend', 'mq_unlink'],
  ...['memfd_create', 'execveat', 'personality', 'mknod', 'mknodat', 'vmsplice', 'tee', 'splice', 'syncfs'],
  ...['sched_setattr', 'sched_setparam', 'sched_setscheduler', 'ioprio_set', 'mlock', 'mlock2', 'mlockall', 'pidfd_send_signal'],
  ...['io_cancel', 'io_destroy', 'io_getevents', 'io_pgetevents', 'io_setup', 'io_submit'],
  ...['setxattr', 'setxattrat', 'lsetxattr', 'fsetxattr', 'removexattr', 'removexattrat', 'lremovexattr', 'fremovexattr'],
])
const AF_NETLINK = 16

const isNetlink = ({ names, args }: Rule): boolean => names.includes('socket') && args?.[0]?.value === AF_NETLINK

/** For agents and our own parts. */
export const SECCOMP: string = JSON.stringify(profile)
/** `security_opt: [seccomp=strict]`. */
export const STRICT_SECCOMP: string = JSON.stringify({
  ...profile,
  syscalls: (profile.syscalls as readonly Rule[])
    .filter((rule) => !isNetlink(rule))
    .map((rule) => ({ ...rule, names: rule.names.filter((name) => !NOT_STRICT.has(name)) }))
    .filter((rule) => rule.names.length > 0),
})

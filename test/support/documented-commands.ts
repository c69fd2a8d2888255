/** The example commands of docs/commands.md. */
import { readFileSync } from 'node:fs';

export interface DocumentedCommand {
  /** What comes behind `npx inp-former`. */
  readonly argv: readonly string[];
  readonly line: string;
}

export function documentedCommands(): DocumentedCommand[] {
  const text = readFileSync('docs/commands.md', 'utf8');
  return [...text.matchAll(/```sh\n([^]*?)```/g)].flatMap(([, block]) => block!.trim().split('\n')).map((line) => {
    const [npx, name, ...argv] = line.split(' ');
    if (npx !== 'npx' || name !== 'inp-former' || argv.length === 0) throw new Error(`docs/commands.md: not a command of ours: ${line}`);
    return { argv, line };
  });
}

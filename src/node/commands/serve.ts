/** `inp-former serve`: the inspection page on this machine, until it is stopped. */
import { servePage } from '../page-server.ts';
import type { CommandContext, CommonOptions } from './context.ts';

export interface ServeCommandOptions extends CommonOptions {
  readonly port: number;
  readonly host: string;
}

export async function serve({ port, host }: ServeCommandOptions, context: CommandContext): Promise<number> {
  const server = await servePage({ host, port });
  context.say(`The inspection page: ${server.url}`);
  if (!['127.0.0.1', 'localhost', '::1'].includes(host)) {
    context.warn(`browsers give WebGPU and the camera only over https or on this machine itself: other machines need an https server in front of ${server.url}.`);
  }
  context.say('Ctrl-C ends it.');
  await new Promise<void>((resolve) => {
    if (context.signal.aborted) resolve();
    context.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  await server.close();
  context.result({ command: 'serve', url: server.url });
  return 0;
}

/** A tuning table in which every kernel has the same variant, where it has one of that name. */
export class ForcedTuning extends Map<string, string> {
  readonly variant: string;

  constructor(variant: string) {
    super();
    this.variant = variant;
  }

  override get(): string {
    return this.variant;
  }
}

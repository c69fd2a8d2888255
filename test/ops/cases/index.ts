import type { OperationCase } from '../../support/operation-case.ts';
import { pointwiseCases } from './pointwise.ts';

export const operationCases: readonly OperationCase[] = [...pointwiseCases];

import type { OperationCase } from '../../support/operation-case.ts';
import { matmulCases } from './matmul.ts';
import { imageInputCases } from './image-input.ts';
import { mapCases } from './maps.ts';
import { tokenCases } from './tokens.ts';
import { lossCases } from './losses.ts';
import { optimizerCases } from './optimizer.ts';
import { attentionCases } from './attention.ts';
import { foldedAttentionCases } from './folded-attention.ts';
import { plusCases } from './plus.ts';
import { pointwiseCases } from './pointwise.ts';
import { settingsCases } from './settings.ts';

export const operationCases: readonly OperationCase[] = [...pointwiseCases, ...attentionCases, ...foldedAttentionCases, ...matmulCases, ...mapCases, ...tokenCases, ...imageInputCases, ...lossCases, ...optimizerCases, ...plusCases, ...settingsCases];

import type { Command } from 'commander'
import { registerAuditExport } from './audit-export.ts'
import { registerAuditQuery } from './audit-query.ts'
import { registerAuditReport } from './audit-report.ts'
import { registerAuditVerify } from './audit-verify.ts'

/** `chaperone audit verify|report|query|export`: what logs prove. */
export function registerAudit(program: Command): void {
  const audit = program
    .command('audit')
    .description('check, report on, search and export audit logs')
  registerAuditVerify(audit)
  registerAuditReport(audit)
  registerAuditQuery(audit)
  registerAuditExport(audit)
}

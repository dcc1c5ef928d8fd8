"""The examination itself. It runs in a process that ends right after it, whatever the application has started."""

import os

from obslib._doctor.application import NotExaminableError, import_application
from obslib._doctor.collector import collector_finding
from obslib._doctor.configuration import configuration
from obslib._doctor.limits import facts, limit_findings, read_limits
from obslib._doctor.ownership import observability_of, ownership_findings, provider_findings
from obslib._doctor.report import Report
from obslib._doctor.versions import installed_versions, version_findings
from obslib._doctor.workers import worker_directory_findings, worker_findings


def examine(application: str) -> Report:
    """
    Look at everything; nothing that is found keeps the rest from being looked at.

    Args:
        application: `module:attribute`, or "" for the environment alone.
    """
    report = Report(application=application)
    limits = read_limits()  # before the application can print
    report.facts = facts(limits)
    report.versions = installed_versions()
    report.findings += version_findings(report.versions)
    in_use = None
    os.dup2(2, 1)  # what the application prints is no part of the report
    if application:
        try:
            app = import_application(application)
        except NotExaminableError as error:
            report.findings.append(error.finding)
        else:
            observability = observability_of(app)
            in_use = None if observability is None else observability.settings
            report.findings += ownership_findings(app)
    report.findings += provider_findings()
    # Only now: the application may have set variables, from a file of its own for instance.
    settings, report.settings, findings = configuration(os.environ, in_use)
    report.findings += findings
    report.findings += worker_findings(os.environ)
    if settings is not None:
        report.findings += worker_directory_findings(settings.worker_directory)
    report.findings += limit_findings(limits, settings)
    if settings is not None:
        report.findings.append(collector_finding(settings))
    return report
